# Prints every thread's physical frames, for GDB of this package: frames of
# inlined and tail calls are gdb's own additions and are left out.
import gdb

for t in sorted(gdb.selected_inferior().threads(), key=lambda t: t.ptid[1]):
    t.switch()
    handle = 0
    try:
        handle = int.from_bytes(t.handle(), "little")
    except Exception:
        pass  # no libthread_db that fits the process's libc
    print("mycore-thread %d %#x" % (t.ptid[1], handle))
    last = None
    try:
        f = gdb.newest_frame()
        while f is not None and f.is_valid():
            if f.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
                signal = f.type() == gdb.SIGTRAMP_FRAME
                print("mycore-frame %#x %d %s" % (f.pc(), signal, f.name()))
            last = f
            f = f.older()
        print("mycore-stop", gdb.frame_stop_reason_string(last.unwind_stop_reason()))
    except gdb.error as e:
        print("mycore-stop error:", e)
