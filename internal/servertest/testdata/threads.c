/* A process of many threads, each blocked for ever in one of several ways,
 * some frames below its start function. Each prints "thread LWP KIND HANDLE"
 * before it blocks; the main thread then waits for a signal.
 *
 *   threads COUNT DEPTH SPARSE_BYTES
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum kind { COND, MUTEX, SEM, POLL, READ, RECV, EPOLL, NANOSLEEP, KINDS };
static const char *const names[KINDS] = {"cond", "mutex", "sem", "poll", "read", "recv", "epoll", "nanosleep"};

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t out = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static int pipes[2], sockets[2], epfd;
static int depth;
static volatile int sink, stop; /* nobody sets stop */

static void block(enum kind k)
{
    char c;
    struct pollfd p = {.fd = pipes[0], .events = POLLIN};
    struct epoll_event e;
    struct timespec day = {.tv_sec = 86400};

    while (!stop) {
        switch (k) {
        case COND:
            pthread_mutex_lock(&cond_mutex);
            pthread_cond_wait(&never, &cond_mutex);
            pthread_mutex_unlock(&cond_mutex);
            break;
        case MUTEX:
            pthread_mutex_lock(&held);
            break;
        case SEM:
            sem_wait(&sem);
            break;
        case POLL:
            poll(&p, 1, -1);
            break;
        case READ:
            sink = read(pipes[0], &c, 1);
            break;
        case RECV:
            sink = recv(sockets[0], &c, 1, 0);
            break;
        case EPOLL:
            epoll_wait(epfd, &e, 1, -1);
            break;
        default:
            nanosleep(&day, NULL);
        }
    }
}

/* Not inlined and no tail call: each level is a frame. */
__attribute__((noinline)) static int descend(int n, enum kind k)
{
    if (n <= 0)
        block(k);
    else
        sink = descend(n - 1, k);
    return sink + n;
}

static void *run(void *arg)
{
    enum kind k = (enum kind)((uintptr_t)arg % KINDS);

    pthread_mutex_lock(&out);
    printf("thread %ld %s %#lx\n", syscall(SYS_gettid), names[k], (unsigned long)pthread_self());
    fflush(stdout);
    pthread_mutex_unlock(&out);
    sink = descend(depth, k);
    return NULL;
}

static void check(int failed, const char *what)
{
    if (failed) {
        perror(what);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    long count, i;
    size_t sparse;
    pthread_attr_t attr;
    struct epoll_event e = {.events = EPOLLIN};

    if (argc != 4)
        return 2;
    count = atol(argv[1]);
    depth = atoi(argv[2]);
    sparse = strtoull(argv[3], NULL, 0);
    check(pipe(pipes), "pipe");
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), "socketpair");
    check((epfd = epoll_create1(0)) < 0, "epoll_create1");
    check(epoll_ctl(epfd, EPOLL_CTL_ADD, pipes[0], &e), "epoll_ctl");
    check(sem_init(&sem, 0, 0), "sem_init");
    pthread_mutex_lock(&held);
    if (sparse > 0) {
        /* One touched page makes the kernel dump the mapping, as a hole. */
        char *m = mmap(NULL, sparse, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        check(m == MAP_FAILED, "mmap");
        m[sparse / 2] = 1;
    }
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 << 10);
    for (i = 0; i < count; i++) {
        pthread_t t;
        check(pthread_create(&t, &attr, run, (void *)(uintptr_t)i), "pthread_create");
    }
    pthread_mutex_lock(&out);
    printf("thread %ld pause %#lx\n", syscall(SYS_gettid), (unsigned long)pthread_self());
    fflush(stdout);
    pthread_mutex_unlock(&out);
    for (;;)
        pause();
}
