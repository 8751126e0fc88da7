package procstat

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mycore/internal/kernelview"
	"mycore/internal/target"
)

// maxFD is the highest descriptor number: fs.nr_open can't exceed 2^30
// (fs/file.c, sysctl_nr_open_max).
const maxFD = 1 << 30

// deletedMark is what the kernel appends to the name of an unlinked file
// (fs/d_path.c).
const deletedMark = " (deleted)"

// files reads the descriptor table, from copied links or from a listing.
func (r *reader) files() {
	ok := r.top.isDir("fd") && r.fdLinks()
	for _, name := range fdListingNames {
		if ok {
			break
		}
		if name == "fd" && r.top.isDir(name) {
			continue
		}
		ok = r.fdListing(name)
	}
	if !ok {
		return
	}
	r.p.FilesKnown = true
	r.fdInfo()
	r.nameSockets()
}

func (r *reader) fdListing(name string) bool {
	b, ok := r.read(r.top, name, maxListing)
	if !ok {
		return false
	}
	files, bad := parseFDListing(b)
	if bad > 0 {
		r.warn(CodeMalformed, "file %q of %q: %d lines are not of a descriptor listing and were left out", name, r.dir, bad)
	}
	r.p.Files = files
	// An empty listing is one that wasn't permitted, as often as not.
	return len(files) > 0
}

// fdLinks reads the links of fd/, and never follows one.
func (r *reader) fdLinks() bool {
	d, ok := r.sub(r.top, "fd")
	if !ok {
		return false
	}
	defer d.close()
	r.found = true
	names := r.names(d, maxFiles)
	files := make([]kernelview.File, 0, len(names))
	var buf [unix.PathMax]byte
	followed, failed := 0, 0
	for _, name := range names {
		fd, ok := parseFD(name)
		if !ok {
			continue
		}
		text, isLink, err := d.link(name, buf[:])
		switch {
		case !isLink:
			followed++
		case err != nil:
			failed++ // a live process closes files meanwhile
		default:
			files = append(files, fileOf(fd, text))
		}
	}
	if followed > 0 {
		r.warn(CodeMalformed, "%d entries of \"fd\" of %q are no links: the copy followed them and what the descriptors were is lost; save the text of `ls -l /proc/PID/fd` as fd.txt, or copy with cp -a", followed, r.dir)
	}
	if failed > 0 {
		r.warn(CodeUnreadable, "%d links of \"fd\" of %q couldn't be read", failed, r.dir)
	}
	r.p.Files = sortFiles(files)
	return len(files) > 0
}

func parseFD(s string) (int, bool) {
	if s == "" || len(s) > 10 || s != "0" && s[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil && n < maxFD
}

// fileOf tells what a descriptor's link text means.
func fileOf(fd int, text string) kernelview.File {
	f := kernelview.File{FD: fd, Path: text, Kind: kernelview.KindOther, Source: target.SourceProc}
	if p, ok := strings.CutSuffix(text, deletedMark); ok {
		f.Path, f.Deleted = p, true
	}
	switch {
	case strings.HasPrefix(text, "/memfd:"):
		// The kernel names it like a deleted file at the root (mm/memfd.c).
		f.Kind = kernelview.KindAnon
	case strings.HasPrefix(text, "/"):
		f.Kind = kernelview.KindPath
	case inodeOf(text, "pipe:[", &f.Inode):
		f.Kind = kernelview.KindPipe
	case inodeOf(text, "socket:[", &f.Inode):
		f.Kind = kernelview.KindSocket
	case strings.HasPrefix(text, "anon_inode:"):
		f.Kind = kernelview.KindAnon
	}
	return f
}

func inodeOf(text, prefix string, dst *uint64) bool {
	s, ok := strings.CutPrefix(text, prefix)
	s, end := strings.CutSuffix(s, "]")
	if !ok || !end {
		return false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return false
	}
	*dst = n
	return true
}

// parseFDListing reads the text of `ls -l /proc/PID/fd`, or plain lines
// "FD -> TARGET". bad counts lines that are neither; headings ("total 0", a
// directory's name with a colon, blank lines) don't count.
func parseFDListing(b []byte) (files []kernelview.File, bad int) {
	seen := map[int]bool{}
	for line := range bytes.SplitSeq(b, []byte{'\n'}) {
		s := strings.TrimRight(string(line), "\r")
		left, text, ok := strings.Cut(s, " -> ")
		if !ok {
			if s != "" && !strings.HasPrefix(s, "total ") && !strings.HasSuffix(s, ":") {
				bad++
			}
			continue
		}
		// Size, date and owner columns come before the descriptor.
		if i := strings.LastIndexByte(left, ' '); i >= 0 {
			left = left[i+1:]
		}
		// ls on a terminal quotes names with blanks in them.
		if n := len(text); n >= 2 && text[0] == '\'' && text[n-1] == '\'' {
			text = text[1 : n-1]
		}
		fd, ok := parseFD(left)
		if !ok || text == "" || seen[fd] || len(files) == maxFiles {
			bad++
			continue
		}
		seen[fd] = true
		files = append(files, fileOf(fd, text))
	}
	return sortFiles(files), bad
}

func sortFiles(files []kernelview.File) []kernelview.File {
	slices.SortFunc(files, func(a, b kernelview.File) int { return a.FD - b.FD })
	return files
}

// fdInfo adds position and flags of fdinfo/FD (fs/proc/fd.c, seq_show).
func (r *reader) fdInfo() {
	d, ok := r.sub(r.top, "fdinfo")
	if !ok {
		return
	}
	defer d.close()
	for i := range r.p.Files {
		f := &r.p.Files[i]
		if b, ok := r.head(d, strconv.Itoa(f.FD), maxFDInfo); ok {
			parseFDInfo(b, f)
		}
	}
}

func parseFDInfo(b []byte, f *kernelview.File) {
	for line := range bytes.SplitSeq(b, []byte{'\n'}) {
		key, rest, _ := bytes.Cut(line, []byte{':'})
		v := string(bytes.TrimSpace(rest))
		switch string(key) {
		case "pos":
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				f.Pos = target.Known(n, target.SourceProc)
			}
		case "flags":
			if n, err := strconv.ParseUint(v, 8, 64); err == nil {
				f.Flags = target.Known(n, target.SourceProc)
			}
			return // what follows is per kind and can be long (epoll, inotify)
		}
	}
}
