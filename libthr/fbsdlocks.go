package libthr

import (
	"encoding/binary"
	"errors"
	"fmt"

	"mycore/internal/target"
)

// Errors of the lock readers.
var (
	// ErrNoLayout: which release's libthr it is isn't known, so its objects
	// can't be read.
	ErrNoLayout = errors.New("layout of the thread library unknown")
	// ErrNoObject: the variable has no object behind it.
	ErrNoObject = errors.New("no object behind it")
)

// LockState is what a lock's words say.
type LockState string

// States of locks.
const (
	LockFree           LockState = "free"
	LockHeld           LockState = "held"
	LockOwnerDead      LockState = "owner dead"      // robust: UMUTEX_RB_OWNERDEAD
	LockNotRecoverable LockState = "not recoverable" // robust: UMUTEX_RB_NOTRECOV
)

// UMutex is struct umutex, the kernel's part of a mutex (sys/_umtx.h).
type UMutex struct {
	Addr      target.Addr
	State     LockState
	Owner     int // LWP; 0 none
	Contested bool
	Flags     uint32 // 1 shared, 4 priority inherit, 8 priority protect, 0x10 robust
}

// struct umutex and its words (sys/sys/_umtx.h, sys/sys/umtx.h; 32 bytes).
const (
	umutexSize      = 32
	umutexContested = 0x80000000
	umutexOwnerDead = umutexContested | 0x10
	umutexNotRecov  = umutexContested | 0x11
)

// UMutexAt reads the struct umutex at an address, as the first argument of
// _umtx_op gives it (UMTX_OP_MUTEX_WAIT).
func UMutexAt(mem target.Memory, a target.Addr) (UMutex, error) {
	var b [umutexSize]byte
	if _, err := mem.ReadMemory(a, b[:8]); err != nil {
		return UMutex{}, fmt.Errorf("reading umutex at %v: %w", a, err)
	}
	owner := binary.LittleEndian.Uint32(b[:])
	m := UMutex{Addr: a, Flags: binary.LittleEndian.Uint32(b[4:])}
	switch {
	case owner == umutexOwnerDead:
		m.State = LockOwnerDead
	case owner == umutexNotRecov:
		m.State = LockNotRecoverable
	case owner&^umutexContested == 0:
		m.State, m.Contested = LockFree, owner != 0
	default:
		m.State, m.Contested = LockHeld, owner&umutexContested != 0
		m.Owner = int(owner &^ umutexContested)
	}
	return m, nil
}

// Mutex is a pthread mutex of libthr.
type Mutex struct {
	UMutex
	// Type is PTHREAD_MUTEX_*: 1 errorcheck, 2 recursive, 3 normal, 4 adaptive.
	Type int
	// Depth is how often its owner holds a recursive mutex beyond once.
	Depth int
	// Problem says what contradicts the owner; empty otherwise.
	Problem string
}

// Special values of the pointer in a pthread_mutex_t, pthread_cond_t or
// pthread_rwlock_t variable (thr_private.h: THR_MUTEX_INITIALIZER and its kin,
// THR_PSHARED_PTR of 11 and later).
const (
	lockStatic  = 0
	lockSpecial = 2 // 1 adaptive initialiser (mutex) or destroyed, 2 destroyed (mutex)
	lockPshared = 0x8000000000000001
)

// Object follows a pthread_mutex_t, pthread_cond_t or pthread_rwlock_t
// variable of the program to libthr's object: on FreeBSD these types are
// pointers. Variables that were never used, or destroyed, or stand for an
// object in shared memory, are ErrNoObject.
func (l *Library) Object(variable target.Addr) (target.Addr, error) {
	v, err := target.Uint64(l.mem, variable)
	switch {
	case err != nil:
		return 0, fmt.Errorf("reading the lock variable at %v: %w", variable, err)
	case v == lockStatic:
		return 0, fmt.Errorf("lock variable at %v is initialised but was never used: %w", variable, ErrNoObject)
	case v <= lockSpecial:
		return 0, fmt.Errorf("lock variable at %v is destroyed or was never used (%d): %w", variable, v, ErrNoObject)
	case v == lockPshared:
		return 0, fmt.Errorf("lock variable at %v stands for an object in shared memory: %w", variable, ErrNoObject)
	}
	return target.Addr(v), nil
}

// struct pthread_mutex (thr_private.h). 12.1: m_lock, m_flags, m_count.
// 10.4: m_lock, m_flags, m_owner (struct pthread *), m_count.
const (
	mutexFlags    = 32
	mutexCount    = 36
	mutexOwner10  = 40
	mutexCount10  = 48
	mutexTypeMask = 0xff
)

// Mutex reads the struct pthread_mutex at an address: what a pthread_mutex_t
// holds (see Object), or a waiting thread's mutex_obj (see CondWait).
func (l *Library) Mutex(obj target.Addr) (Mutex, error) {
	if l.fbsd == nil || l.fbsd.layout == nil || l.fbsd.layout.magic == noField {
		return Mutex{}, fmt.Errorf("reading mutex at %v: %w", obj, ErrNoLayout)
	}
	var b [mutexCount10 + 4]byte
	if _, err := l.mem.ReadMemory(obj, b[:]); err != nil {
		return Mutex{}, fmt.Errorf("reading mutex at %v: %w", obj, err)
	}
	u, err := UMutexAt(l.mem, obj)
	if err != nil {
		return Mutex{}, err
	}
	m := Mutex{UMutex: u, Type: int(binary.LittleEndian.Uint32(b[mutexFlags:]) & mutexTypeMask)}
	if !l.fbsd.layout.mutexOwner {
		m.Depth = int(int32(binary.LittleEndian.Uint32(b[mutexCount:])))
		m.Problem = l.ownerProblem(m.Owner)
		return m, nil
	}
	m.Depth = int(int32(binary.LittleEndian.Uint32(b[mutexCount10:])))
	m.Problem = l.ownerByHandle(u.Owner, target.Addr(le64(b[mutexOwner10:])))
	return m, nil
}

// ownerProblem: an owner should be a thread of the process.
func (l *Library) ownerProblem(lwp int) string {
	if lwp == 0 {
		return ""
	}
	if _, ok := l.ByLWP(lwp); !ok {
		return fmt.Sprintf("its owner %d is no thread of the process: the thread ended while it held the lock, or this is no lock", lwp)
	}
	return ""
}

// ownerByHandle compares the two names of an owner, LWP and struct pthread.
func (l *Library) ownerByHandle(lwp int, h target.Addr) string {
	if p := l.ownerProblem(lwp); p != "" {
		return p
	}
	if h == 0 {
		return "" // between taking the lock and noting it down
	}
	t, ok := l.ByHandle(h)
	switch {
	case !ok:
		return fmt.Sprintf("its owner's handle %v is no thread's", h)
	case lwp != 0 && t.LWP != lwp:
		return fmt.Sprintf("its two owners contradict: LWP %d, but handle %v of LWP %d", lwp, h, t.LWP)
	}
	return ""
}

// RWLock is a pthread rwlock of libthr. Readers are counted, not recorded.
type RWLock struct {
	Addr           target.Addr
	Writer         int // LWP of the holder for writing; 0 none, or unknown with WriteHeld
	WriteHeld      bool
	Readers        int
	BlockedReaders int
	BlockedWriters int
	Problem        string
}

// struct urwlock (sys/sys/_umtx.h; 32 bytes), then the owner: LWP in 12.1,
// struct pthread * in 10.4 (thr_private.h, struct pthread_rwlock).
const (
	rwlockWrite          = 0x80000000
	rwlockReaders        = 0x1fffffff
	rwlockBlockedReaders = 8
	rwlockBlockedWriters = 12
	rwlockOwner          = 32
)

// RWLock reads the struct pthread_rwlock at an address (see Object).
func (l *Library) RWLock(obj target.Addr) (RWLock, error) {
	if l.fbsd == nil || l.fbsd.layout == nil || l.fbsd.layout.magic == noField {
		return RWLock{}, fmt.Errorf("reading rwlock at %v: %w", obj, ErrNoLayout)
	}
	var b [rwlockOwner + 8]byte
	if _, err := l.mem.ReadMemory(obj, b[:]); err != nil {
		return RWLock{}, fmt.Errorf("reading rwlock at %v: %w", obj, err)
	}
	state := binary.LittleEndian.Uint32(b[:])
	rw := RWLock{Addr: obj, WriteHeld: state&rwlockWrite != 0,
		BlockedReaders: int(binary.LittleEndian.Uint32(b[rwlockBlockedReaders:])),
		BlockedWriters: int(binary.LittleEndian.Uint32(b[rwlockBlockedWriters:]))}
	if !rw.WriteHeld {
		rw.Readers = int(state & rwlockReaders)
		return rw, nil
	}
	if !l.fbsd.layout.mutexOwner {
		rw.Writer = int(int32(binary.LittleEndian.Uint32(b[rwlockOwner:])))
		rw.Problem = l.ownerProblem(rw.Writer)
		return rw, nil
	}
	h := target.Addr(le64(b[rwlockOwner:]))
	if t, ok := l.ByHandle(h); ok {
		rw.Writer = t.LWP
	} else if h != 0 {
		rw.Problem = fmt.Sprintf("its owner's handle %v is no thread's", h)
	}
	return rw, nil
}

// CondWait is what a thread waits for by libthr's own record.
type CondWait struct {
	Cond  target.Addr // struct pthread_cond
	Mutex target.Addr // struct pthread_mutex that it left for it; 0 none recorded
}

// CondWait reads the condition variable on which a thread waits from its
// struct pthread. ok is false when it waits on none. The record stands from
// shortly before the sleep until the thread was woken; that the thread sleeps
// is the kernel's to say (wait message uwait, _umtx_op).
func (l *Library) CondWait(lwp int) (w CondWait, ok bool, err error) {
	t, found := l.ByLWP(lwp)
	switch {
	case l.fbsd == nil || l.fbsd.layout == nil || l.fbsd.layout.wchan == noField:
		return w, false, fmt.Errorf("condition of LWP %d: %w", lwp, ErrNoLayout)
	case !found || !t.Handle.Known:
		return w, false, fmt.Errorf("condition of LWP %d: its thread structure is unknown", lwp)
	}
	var b [16]byte
	if _, err := l.mem.ReadMemory(t.Handle.V+target.Addr(l.fbsd.layout.wchan), b[:]); err != nil {
		return w, false, fmt.Errorf("condition of LWP %d: %w", lwp, err)
	}
	w.Cond, w.Mutex = target.Addr(le64(b[:])), target.Addr(le64(b[8:]))
	return w, w.Cond != 0, nil
}

// Release names the FreeBSD release whose struct pthread the target's is: "10",
// "12" (11 too), "13" (14 too), "15"; "" when unknown. 15's differs from 13's
// only behind mutex_obj.
func (l *Library) Release() string {
	if l.fbsd == nil || l.fbsd.layout == nil || l.fbsd.layout.magic == noField {
		return ""
	}
	return l.fbsd.layout.name
}
