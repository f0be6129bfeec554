/* Faults for a process that is started with LD_PRELOAD: writes that fail, and a clock that steps.

   The library maps the file $CHAOS_CONTROL: `clock` nanoseconds are added to the time of day of every process, and each
   process obeys the slot $CHAOS_SLOT. Where a slot's `error` is set, calls on regular files below $CHAOS_ROOT are
   counted down from `after`; from zero on they fail with that error, `times` of them. The harness changes the file
   while processes run. Monotonic clocks, terminals and pipes are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 16 };
struct slot { int32_t error, after, times, failed; };
struct control { int64_t clock; struct slot slots[SLOTS]; };

static struct control *control;
static struct slot *mine;
static char root[4096];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CONTROL"), *slot = getenv("CHAOS_SLOT"), *below = getenv("CHAOS_ROOT");
    if (!path || !slot || !below) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) return;
    snprintf(root, sizeof root, "%s/", below);
    control = mapped;
    mine = &control->slots[atoi(slot) % SLOTS];
}

/* A full disk (ENOSPC) refuses what takes space; any other error whatever is asked of the disk. */
static int fails(int fd, int takes_space) {
    if (!mine || !mine->error || (mine->error == ENOSPC && !takes_space)) return 0;
    struct stat kind;
    char name[64], path[4096];
    int saved = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = fstat(fd, &kind) == 0 ? readlink(name, path, sizeof path - 1) : -1;
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    if (!(S_ISREG(kind.st_mode) || S_ISDIR(kind.st_mode)) || strncmp(path, root, strlen(root))) return 0;
    if (__atomic_fetch_sub(&mine->after, 1, __ATOMIC_SEQ_CST) > 0) return 0;
    if (__atomic_fetch_sub(&mine->times, 1, __ATOMIC_SEQ_CST) <= 0) return 0;
    __atomic_fetch_add(&mine->failed, 1, __ATOMIC_SEQ_CST);
    errno = mine->error;
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    return fails(fd, 1) ? -1 : real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return fails(fd, 1) ? -1 : real(fd, parts, count);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    return fails(fd, 1) ? -1 : real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    return fails(fd, 1) ? -1 : real(fd, data, size, at);
}
int fsync(int fd) {
    REAL(int, fsync, int);
    return fails(fd, 0) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return fails(fd, 0) ? -1 : real(fd);
}
int ftruncate(int fd, off_t size) {
    REAL(int, ftruncate, int, off_t);
    return fails(fd, 0) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    return fails(fd, 0) ? -1 : real(fd, size);
}

static int64_t step(void) { return control ? __atomic_load_n(&control->clock, __ATOMIC_SEQ_CST) : 0; }

int clock_gettime(clockid_t which, struct timespec *found) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = real(which, found);
    if (result == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        int64_t moment = found->tv_sec * INT64_C(1000000000) + found->tv_nsec + step();
        found->tv_sec = moment / 1000000000;
        found->tv_nsec = moment % 1000000000;
    }
    return result;
}
int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    REAL(int, gettimeofday, struct timeval *restrict, void *restrict);
    int result = real(found, zone);
    if (result == 0) {
        int64_t moment = found->tv_sec * INT64_C(1000000) + found->tv_usec + step() / 1000;
        found->tv_sec = moment / 1000000;
        found->tv_usec = moment % 1000000;
    }
    return result;
}
time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
