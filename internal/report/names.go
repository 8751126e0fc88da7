package report

import "strings"

// shortName makes the one-line form of a demangled function name: without
// parameters, template arguments and the return type that demanglers print
// for templates. A name that isn't C++ stays as it is.
//
//	mysql_load(THD*, sql_exchange const*)           mysql_load
//	void Detached_thread::operator()<void (&)()>()  Detached_thread::operator()
//	(anonymous namespace)::f(int)                   (anonymous namespace)::f
func shortName(name string) string {
	if !strings.ContainsAny(name, "(<") {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		rest := name[i:]
		if op := operatorName(b.String(), rest); op > 0 {
			b.WriteString(rest[:op])
			i += op
			continue
		}
		switch {
		case strings.HasPrefix(rest, "(anonymous namespace)"):
			b.WriteString("(anonymous namespace)")
			i += len("(anonymous namespace)")
		case rest[0] == '{': // {lambda(int)#1}
			n := group(rest, '{', '}')
			b.WriteString(rest[:n])
			i += n
		case rest[0] == '<':
			i += group(rest, '<', '>')
		case rest[0] == '(':
			if b.Len() == 0 {
				return name
			}
			return afterType(b.String())
		default:
			b.WriteByte(rest[0])
			i++
		}
	}
	return afterType(b.String())
}

// operatorName is the length of an operator's symbol at the start of rest,
// when what comes before ends in the word operator; 0 when it doesn't.
func operatorName(before, rest string) int {
	if !strings.HasSuffix(before, "operator") {
		return 0
	}
	for _, op := range []string{"()", "<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "<", ">"} {
		if strings.HasPrefix(rest, op) {
			return len(op)
		}
	}
	return 0
}

// group is the length of the bracketed text that s begins with; all of s when
// the bracket isn't closed.
func group(s string, open, end byte) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case open:
			depth++
		case end:
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// afterType takes a return type off; "operator bool" and lambdas keep their
// blanks, and so does a local name of an unnamed namespace.
func afterType(name string) string {
	name = strings.TrimSpace(name)
	end := len(name)
	if i := strings.Index(name, "operator "); i >= 0 {
		end = i
	}
	if i := strings.IndexAny(name[:end], "({"); i >= 0 {
		end = i
	}
	if i := strings.LastIndexByte(name[:end], ' '); i >= 0 {
		return name[i+1:]
	}
	return name
}
