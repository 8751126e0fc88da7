package elfcore

import (
	"encoding/binary"
	"fmt"

	"mycore/internal/elfimage"
	"mycore/internal/target"
)

// KINFO_PROC_SIZE of 64-bit machines and of i386 (sys/sys/user.h; checked at
// compile time in sys/kern/imgact_elf.c and kern_proc.c).
const (
	kinfoProcSize   = 1088
	kinfoProcSize32 = 768
)

// kinfoProc is what is used of struct kinfo_proc: one per thread in the note
// PROCSTAT_PROC.
type kinfoProc struct {
	tid, pid, ppid                         int
	uid, gid                               int
	stat                                   int
	flag, kiflag, tdflags                  uint64
	slept                                  uint32 // seconds
	wchan                                  uint64
	wmesg, lock, name                      string
	tracer                                 int
	sigBlocked, sigPending, ignored, catch uint64
}

// Values of struct kinfo_proc.
const (
	// Run states, ki_stat (sys/sys/proc.h).
	fbSIdl   = 1
	fbSRun   = 2
	fbSSleep = 3
	fbSStop  = 4
	fbSZomb  = 5
	fbSWait  = 6
	fbSLock  = 7

	// Process flags, ki_flag (sys/sys/proc.h).
	fbPTraced        = 0x800
	fbPStoppedTrace  = 0x40000
	fbPStoppedSingle = 0x80000

	fbTDSintr     = 0x8 // TDF_SINTR in ki_tdflags: the sleep is interruptible (sys/sys/proc.h)
	fbKILockblock = 0x4 // KI_LOCKBLOCK in ki_kiflag: blocked on ki_lockname (sys/sys/user.h)
)

// decodeKinfo reads one struct kinfo_proc of a 64-bit machine (sys/sys/user.h;
// the same offsets in FreeBSD 10.4, 12.1 and main).
func decodeKinfo(b []byte) kinfoProc {
	i32 := func(at int) int { return int(int32(binary.LittleEndian.Uint32(b[at:]))) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	k := kinfoProc{
		wchan: u64(64), pid: i32(72), ppid: i32(76),
		sigPending: sigset(b[104:]), sigBlocked: sigset(b[120:]), ignored: sigset(b[136:]), catch: sigset(b[152:]),
		uid: i32(168), gid: i32(192), // ki_groups[0] is the effective group
		slept: binary.LittleEndian.Uint32(b[316:]), flag: u64(368), kiflag: u64(376), stat: int(b[388]),
		wmesg: untilNUL(b[411:420]), lock: untilNUL(b[438:447]),
		tracer: i32(576), tid: i32(600), tdflags: u64(1080),
	}
	// A name of up to 19 characters is split: 16 in ki_tdname, the rest in
	// ki_moretdname (12 and later; spare zeros before).
	k.name = untilNUL(b[394:411])
	if len(k.name) == 16 {
		k.name += untilNUL(b[502:506])
	}
	return k
}

// proc reads PROCSTAT_PROC: an int with the size of the structure, then one
// structure per thread, in the order of the process's thread list, which isn't
// that of the PRSTATUS notes: they are joined by ki_tid.
func (d *fbsdDecoder) proc(n elfimage.Note) {
	if d.word() == 4 || d.lay == nil {
		return // said already: this machine isn't read beyond its threads
	}
	var buf [kinfoProcSize]byte
	if !d.fixed(n, "PROCSTAT_PROC", buf[:4]) {
		return
	}
	if got := binary.LittleEndian.Uint32(buf[:4]); got != kinfoProcSize {
		d.c.warn(WarnKinfo, "the kernel's records of the threads (PROCSTAT_PROC) have %d bytes each, %d are known: wait messages and states are missing", got, kinfoProcSize)
		return
	}
	if err := d.kinfos(n, buf[:]); err != nil {
		d.c.warn(WarnKinfo, "the kernel's records of the threads (PROCSTAT_PROC) at offset %#x: %v; %d were read", n.Off, err, len(d.f.kinfo))
	}
}

func (d *fbsdDecoder) kinfos(n elfimage.Note, buf []byte) error {
	dups := 0
	defer func() {
		if dups > 0 {
			d.c.warn(WarnKinfo, "PROCSTAT_PROC has %d more records of a thread that it had before: the first counts", dups)
		}
	}()
	off := uint64(4)
	for i := 0; n.Size-off >= kinfoProcSize; i++ {
		if i >= MaxThreads {
			return fmt.Errorf("it has more than %d records", MaxThreads)
		}
		if got, err := n.ReadAt(buf, off); got < len(buf) {
			return fmt.Errorf("record %d: %w", i+1, err)
		}
		switch size := binary.LittleEndian.Uint32(buf); size {
		case kinfoProcSize:
		case 0:
			return nil // padding: a thread ended after the kernel had fixed the size of the note
		default:
			return fmt.Errorf("record %d has %d bytes, %d are known", i+1, size, kinfoProcSize)
		}
		k := decodeKinfo(buf)
		d.f.kinfoSeen = true
		if _, dup := d.f.kinfo[k.tid]; dup {
			dups++
		} else {
			d.f.kinfo[k.tid] = &k
			d.pending = append(d.pending, k.tid)
		}
		off += kinfoProcSize
	}
	if left := n.Size - off; left > 0 {
		return fmt.Errorf("%d bytes are left behind the last whole record", left)
	}
	return nil
}

// waitMessage is what the thread sleeps for, as procstat shows it: the message,
// or "*name" for a kernel lock. Absent when the record is empty: kernel cores
// lose the message of every thread whose sleep could be interrupted, so an
// empty one never says that the thread didn't wait.
func (k *kinfoProc) waitMessage() target.Value[string] {
	switch {
	case k.kiflag&fbKILockblock != 0 && k.lock != "":
		return target.Known("*"+k.lock, target.SourceCoreNote)
	case k.wmesg != "":
		return target.Known(k.wmesg, target.SourceCoreNote)
	}
	return target.Value[string]{}
}

// state is the letter that ps shows (bin/ps/print.c, state). The dump itself
// stops every thread (ki_stat SSTOP), which says nothing of what it did before:
// then the letter comes from its sleep, or is absent.
func (k *kinfoProc) state() target.Value[string] {
	letter := ""
	switch k.stat {
	case fbSIdl, fbSRun:
		letter = "R"
	case fbSSleep:
		letter = k.sleep()
	case fbSStop:
		switch {
		case k.wmesg != "":
			letter = k.sleep()
		case k.flag&(fbPTraced|fbPStoppedTrace|fbPStoppedSingle) == 0:
			letter = "T"
		}
	case fbSZomb:
		letter = "Z"
	case fbSWait:
		letter = "W"
	case fbSLock:
		letter = "L"
	}
	if letter == "" {
		return target.Value[string]{}
	}
	return target.Known(letter, target.SourceCoreNote)
}

func (k *kinfoProc) sleep() string {
	if k.tdflags&fbTDSintr != 0 {
		return "S"
	}
	return "D"
}
