package report

import (
	"strconv"
	"time"

	"mycore/internal/incident"
)

// maxLogLines is how many facts of the logs the text shows; the JSON has all.
const maxLogLines = 20

// logs shows what the saved logs say, newest last.
func (r *renderer) logs(p *page) {
	p.heading("LOGS", "", "", "", p.bold)
	facts := r.inc.Logs
	if len(facts) == 0 {
		p.prose("  ", "  ", "nothing in them that is known to matter")
		return
	}
	if n := len(facts) - maxLogLines; n > 0 && !p.opts.Verbose {
		p.prose("  ", "  ", strconv.Itoa(n)+" earlier lines aren't shown (--verbose shows them)")
		facts = facts[n:]
	}
	for i := range facts {
		p.prose("  ", "      ", logLine(&facts[i]))
	}
}

func logLine(f *incident.LogFact) string {
	s := f.Kind
	if f.Time != nil {
		when := f.Time.Format(time.RFC3339)
		if f.LocalTime {
			when = f.Time.Format("2006-01-02 15:04:05") // in a zone that the log doesn't tell
		}
		s = when + " " + s
	}
	if f.LWP != 0 {
		s += ", LWP " + strconv.Itoa(f.LWP)
	}
	if f.Connection != nil {
		s += ", connection " + strconv.FormatUint(*f.Connection, 10)
	}
	s += ": " + f.Text
	where := " (" + string(f.Source)
	if f.Line != 0 {
		where += " line " + strconv.Itoa(f.Line)
	}
	return s + where + ")"
}
