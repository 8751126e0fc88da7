package story

// fillLists links the threads on libthr's _thread_list: TAILQ_INSERT_HEAD, so
// the newest comes first (libthr/thread/thr_list.c, THR_LIST_ADD).
func (w *world) fillLists() {
	libthr := w.images[1]
	head := libthr.run("_thread_list")
	tle := w.lay.tle
	back := head // where the link to the next one lies
	for i := len(w.threads) - 1; i >= 0; i-- {
		h := w.threads[i].Handle
		w.mem.putWord(back, h)
		w.mem.putWord(h+tle+8, back)
		back = h + tle
	}
	w.mem.putWord(head+8, back)
	w.mem.put32(libthr.run("_thread_active_threads"), uint32(len(w.threads)))
	w.mem.putWord(libthr.run("_thr_initial"), w.threads[0].Handle)
	w.mem.putText(userStack-0x400, MysqldPath)
	// struct ps_strings: argv, count.
	w.mem.putWord(userStack-0x20, userStack-0x300+8)
	w.mem.put32(userStack-0x20+8, uint32(len(argv)))
}

// writeCore makes the core file: header, program headers, notes, memory.
// gcore marks every segment as writable (usr.bin/gcore/elfcore.c).
func (w *world) writeCore(s *Story) {
	type load struct {
		start uint64
		data  []byte
		flags uint32
	}
	var loads []load
	for _, r := range w.mem.regions {
		loads = append(loads, load{r.start, r.data, 6})
	}
	shared := uint32(7)
	if w.opts.KernelCore {
		shared = 5
	}
	loads = append(loads, load{userStack, make([]byte, page), shared})
	notes := w.notes()
	count := 1 + len(loads)
	notesAt := 64 + 56*count
	at := align(uint64(notesAt+len(notes)), page)
	size := at
	for _, l := range loads {
		size += uint64(len(l.data))
	}
	out := make([]byte, size)
	copy(out, "\x7fELF\x02\x01\x01\x09")
	le.PutUint16(out[16:], 4)
	le.PutUint16(out[18:], 62)
	le.PutUint32(out[20:], 1)
	le.PutUint64(out[32:], 64)
	le.PutUint16(out[52:], 64)
	le.PutUint16(out[54:], 56)
	le.PutUint16(out[56:], uint16(count))
	le.PutUint16(out[58:], 64)
	put := func(i int, typ, flags uint32, off, vaddr, filesz, memsz, al uint64) {
		b := out[64+56*i:]
		le.PutUint32(b, typ)
		le.PutUint32(b[4:], flags)
		for k, v := range []uint64{off, vaddr, 0, filesz, memsz, al} {
			le.PutUint64(b[8+8*k:], v)
		}
	}
	put(0, 4, 4, uint64(notesAt), 0, uint64(len(notes)), 0, 4)
	copy(out[notesAt:], notes)
	for i, l := range loads {
		n := uint64(len(l.data))
		put(1+i, 1, l.flags, at, l.start, n, n, page)
		copy(out[at:], l.data)
		at += n
	}
	s.Core = out
	s.NotesEnd = notesAt + len(notes)
	for o := notesAt; o < s.NotesEnd; {
		s.NoteOffs = append(s.NoteOffs, o)
		o += 12 + int(align(uint64(le.Uint32(out[o:])), 4)+align(uint64(le.Uint32(out[o+4:])), 4))
	}
}
