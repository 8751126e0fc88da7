package logtext

import (
	"strconv"
	"strings"
	"time"

	"mycore/internal/target"
)

// stamp is the time of a line.
type stamp struct {
	t      time.Time // zero: not known
	local  bool      // t is a clock's reading in an unknown zone, taken as UTC
	boot   target.Value[time.Duration]
	padded bool // 2026-11-21  4:03:54: MariaDB
	iso    bool // 2026-11-21T04:03:54...: MySQL 5.7 and later
	short  bool // syslog's "Nov 21 04:03:54", or another form with a host behind
}

// clock reads the times that lines begin with.
type clock struct {
	around time.Time // gives the year to times without one
	loc    *time.Location
	boot   time.Time
}

// match reads the beginning of s by a pattern: d is a digit, s a digit or a
// blank, a a letter, all else itself.
func match(s, pattern string) bool {
	if len(s) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		c := s[i]
		digit := c >= '0' && c <= '9'
		switch pattern[i] {
		case 'd':
			if !digit {
				return false
			}
		case 's':
			if !digit && c != ' ' {
				return false
			}
		case 'a':
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		default:
			if c != pattern[i] {
				return false
			}
		}
	}
	return true
}

// num is the number in s, blanks before it allowed; s was matched.
func num(s string) int {
	n, _ := strconv.Atoi(strings.TrimLeft(s, " "))
	return n
}

// at makes a time of a clock's reading in the log's zone.
func (c clock) at(year, month, day int, hms string, nanos int) (stamp, bool) {
	h, m, sec := num(hms[0:2]), num(hms[3:5]), num(hms[6:8])
	if month < 1 || month > 12 || day < 1 || day > 31 || h > 23 || m > 59 || sec > 60 {
		return stamp{}, false
	}
	loc := c.loc
	if loc == nil {
		loc = time.UTC
	}
	t := time.Date(year, time.Month(month), day, h, m, sec, nanos, loc)
	return stamp{t: t.UTC(), local: c.loc == nil}, true
}

// read takes the time off the beginning of a line:
//
//	2026-11-21T04:03:54.123456Z   MySQL 5.7 and later, journalctl short-iso, dmesg iso
//	2026-11-21 04:03:54           MySQL 5.6; MariaDB pads the hour with a blank
//	150804  6:12:09               MySQL up to 5.5, MariaDB up to 10.0 and its crash line
//	Nov 21 04:03:54               syslog, journalctl short
//	Fri 2026-11-21 04:03:54 UTC   journalctl short-full
//	[Fri Nov 21 04:03:54 2026]    dmesg -T
//	[12345.678901]                dmesg
func (c clock) read(line string) (stamp, string, bool) {
	switch {
	case match(line, "dddd-dd-ddTdd:dd:dd"):
		return c.readISO(line)
	case match(line, "dddd-dd-dd sd:dd:dd"):
		s, ok := c.at(num(line[:4]), num(line[5:7]), num(line[8:10]), line[11:19], 0)
		s.padded = line[11] == ' '
		return s, strings.TrimLeft(line[19:], " "), ok
	case match(line, "dddddd sd:dd:dd"):
		// Two digits of the year: the format ended with 2013's servers, but
		// MariaDB's crash line has it still.
		s, ok := c.at(2000+num(line[:2]), num(line[2:4]), num(line[4:6]), line[7:15], 0)
		return s, strings.TrimLeft(line[15:], " "), ok
	case match(line, "aaa sd dd:dd:dd"):
		return c.readSyslog(line)
	case match(line, "aaa dddd-dd-dd dd:dd:dd "):
		s, ok := c.at(num(line[4:8]), num(line[9:11]), num(line[12:14]), line[15:23], 0)
		zone, rest, _ := strings.Cut(line[24:], " ")
		if zone == "UTC" {
			s, ok = clock{loc: time.UTC}.at(num(line[4:8]), num(line[9:11]), num(line[12:14]), line[15:23], 0)
		}
		s.short = true
		return s, rest, ok
	}
	return c.readDmesg(line)
}

// readISO reads an ISO 8601 time with or without fraction and zone.
func (c clock) readISO(line string) (stamp, string, bool) {
	rest := line[19:]
	nanos := 0
	if rest != "" && (rest[0] == '.' || rest[0] == ',') {
		n := 1
		for n < len(rest) && n <= 9 && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		nanos = num((rest[1:n] + "000000000")[:9])
		rest = rest[n:]
	}
	zoned := c
	switch {
	case strings.HasPrefix(rest, "Z"):
		zoned.loc, rest = time.UTC, rest[1:]
	case match(rest, "+dd:dd"), match(rest, "-dd:dd"):
		zoned.loc, rest = offsetZone(rest[0], rest[1:3], rest[4:6]), rest[6:]
	case match(rest, "+dddd"), match(rest, "-dddd"):
		zoned.loc, rest = offsetZone(rest[0], rest[1:3], rest[3:5]), rest[5:]
	}
	if rest != "" && rest[0] != ' ' {
		return stamp{}, line, false
	}
	s, ok := zoned.at(num(line[:4]), num(line[5:7]), num(line[8:10]), line[11:19], nanos)
	s.iso, s.short = true, true
	return s, strings.TrimLeft(rest, " "), ok
}

func offsetZone(sign byte, hours, minutes string) *time.Location {
	sec := num(hours)*3600 + num(minutes)*60
	if sign == '-' {
		sec = -sec
	}
	return time.FixedZone("", sec)
}

var months = [...]string{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}

func monthOf(s string) int {
	for i, m := range months {
		if m == s {
			return i + 1
		}
	}
	return 0
}

// readSyslog reads a time without a year: the year that brings it nearest to
// the capture. Without a capture's time it stays unknown.
func (c clock) readSyslog(line string) (stamp, string, bool) {
	month := monthOf(line[:3])
	if month == 0 {
		return stamp{}, line, false
	}
	rest := line[15:]
	if rest != "" && rest[0] == '.' {
		rest = strings.TrimLeft(rest[1:], "0123456789")
	}
	rest = strings.TrimLeft(rest, " ")
	if c.around.IsZero() {
		return stamp{short: true}, rest, true
	}
	var best stamp
	for _, year := range [...]int{c.around.Year() - 1, c.around.Year(), c.around.Year() + 1} {
		s, ok := c.at(year, month, num(line[4:6]), line[7:15], 0)
		if !ok {
			return stamp{}, line, false
		}
		if best.t.IsZero() || s.t.Sub(c.around).Abs() < best.t.Sub(c.around).Abs() {
			best = s
		}
	}
	best.short = true
	return best, rest, true
}

// readDmesg reads the brackets of dmesg, with a level ("<6>", "kern  :err   :")
// before and a caller ("[ T123]") behind.
func (c clock) readDmesg(line string) (stamp, string, bool) {
	s := line
	if match(s, "<d>") {
		s = s[3:]
	} else if strings.HasPrefix(s, "kern ") {
		if i := strings.Index(s, ": ["); i > 0 && i < 24 {
			s = s[i+2:]
		}
	}
	if s == "" || s[0] != '[' {
		return stamp{}, line, false
	}
	in, rest, ok := strings.Cut(s[1:], "]")
	if !ok || len(in) > 40 {
		return stamp{}, line, false
	}
	var out stamp
	in = strings.TrimLeft(in, " ")
	if match(in, "aaa aaa sd dd:dd:dd dddd") {
		month := monthOf(in[4:7])
		if out, ok = c.at(num(in[20:24]), month, num(in[8:10]), in[11:19], 0); !ok {
			return stamp{}, line, false
		}
	} else {
		whole, frac, ok := strings.Cut(in, ".")
		sec, err := strconv.ParseUint(whole, 10, 32)
		if !ok || err != nil || len(frac) != 6 || strings.Trim(frac, "0123456789") != "" {
			return stamp{}, line, false
		}
		d := time.Duration(sec)*time.Second + time.Duration(num(frac))*time.Microsecond
		out.boot = target.Known(d, "kernel-log")
		if !c.boot.IsZero() {
			out.t = c.boot.Add(d).UTC()
		}
	}
	rest = strings.TrimLeft(rest, " ")
	if strings.HasPrefix(rest, "[") {
		if caller, after, ok := strings.Cut(rest[1:], "]"); ok && len(caller) < 12 && (strings.Contains(caller, "T") || strings.Contains(caller, "C")) {
			rest = strings.TrimLeft(after, " ")
		}
	}
	return out, rest, true
}

// journal cuts "host ident[pid]: " off the rest of a line of a journal or of
// syslog. ok is false when there is no such beginning.
func journal(rest string) (ident string, pid int, message string, ok bool) {
	host, after, ok := strings.Cut(rest, " ")
	if !ok || host == "" || len(host) > 255 || strings.HasSuffix(host, ":") {
		return "", 0, "", false
	}
	ident, message, ok = strings.Cut(after, ":")
	if !ok || ident == "" || len(ident) > 128 || strings.ContainsAny(ident, " \t") || ident[0] == '(' {
		return "", 0, "", false
	}
	if name, num, found := strings.Cut(ident, "["); found {
		n, err := strconv.ParseUint(strings.TrimSuffix(num, "]"), 10, 31)
		if err != nil {
			return "", 0, "", false
		}
		ident, pid = name, int(n)
	}
	return ident, pid, strings.TrimPrefix(message, " "), true
}
