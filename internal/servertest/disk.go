package servertest

import "sync"

// liveCores counts the disk space of the cores that exist in this process.
var liveCores coreBook

type coreBook struct {
	mu    sync.Mutex
	bytes map[string]int64
}

// add books a core and gives the sum of all.
func (b *coreBook) add(path string, bytes int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes == nil {
		b.bytes = map[string]int64{}
	}
	b.bytes[path] = bytes
	sum := int64(0)
	for _, n := range b.bytes {
		sum += n
	}
	return sum
}

func (b *coreBook) remove(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.bytes, path)
}
