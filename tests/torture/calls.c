/* Preloaded into a process, this counts the calls that change files below one folder and those that tell something to a
   PostgreSQL server, and lets the n-th one fail, or ends the process before, in the middle of, or after it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum { COUNT = 0, BEFORE = -1, AFTER = -2, HALF = -3 }; /* greater than zero: the errno to fail with */

static char root[PATH_MAX];
static size_t root_length;
static long target, seen;
static int action, log_file = -1;

/* folder: absolute, without links; n: which call, from 1 on; log: descriptor that names of calls are written to, or -1. */
void calls_arm(const char *folder, long n, int what, int log) {
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    target = n, action = what, log_file = log, seen = 0;
}

long calls_seen(void) { return seen; }

static void die(void) { kill(getpid(), SIGKILL); }

static int inside(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* One call more; 0 to go on, 1 to end after the call, 2 to end in the middle of it, -1 to fail with errno. */
static int count(const char *call, const char *what) {
    long number = __sync_add_and_fetch(&seen, 1);
    if (log_file >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s %s\n", call, what);
        syscall(SYS_write, log_file, line, length);
    }
    if (number != target || action == COUNT)
        return 0;
    if (action == BEFORE)
        die();
    if (action > 0) {
        errno = action;
        return -1;
    }
    return action == AFTER ? 1 : 2;
}

static int meet(const char *call, const char *path) { return inside(path) ? count(call, path + root_length) : 0; }

/* kind: the first byte of what is said, which names a message of PostgreSQL's protocol. */
static int meet_server(int file, char kind) {
    struct sockaddr_un there;
    socklen_t length = sizeof there;
    char what[] = "server ?";
    if (!root_length || getpeername(file, (struct sockaddr *)&there, &length) || there.sun_family != AF_UNIX ||
        !strstr(there.sun_path, ".s.PGSQL."))
        return 0;
    if (kind >= 'A' && kind <= 'Z')
        what[sizeof what - 2] = kind;
    return count("send", what);
}

static int meet_file(const char *call, int file) {
    char link[64], path[PATH_MAX];
    if (!root_length)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return meet(call, path);
}

static int meet_name(const char *call, int folder, const char *name) {
    char path[2 * PATH_MAX], link[64];
    if (!root_length)
        return 0;
    if (name[0] == '/')
        return meet(call, name);
    if (folder == AT_FDCWD) {
        if (!getcwd(path, PATH_MAX))
            return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, path, PATH_MAX - 1);
        if (length <= 0)
            return 0;
        path[length] = 0;
    }
    strcat(path, "/");
    strncat(path, name, PATH_MAX - 2);
    return meet(call, path);
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)
#define AROUND(met, done) do { int m = (met); if (m < 0) return -1; __typeof__(done) r = (done); if (m) die(); return r; } while (0)
#define WRITING(met, whole, half) do { int m = (met); if (m < 0) return -1; if (m == 2) { half; die(); } \
    ssize_t r = (whole); if (m) die(); return r; } while (0)

ssize_t write(int f, const void *data, size_t n) {
    REAL(ssize_t, write, int, const void *, size_t);
    WRITING(meet_file("write", f), real(f, data, n), real(f, data, n / 2));
}
ssize_t pwrite(int f, const void *data, size_t n, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    WRITING(meet_file("pwrite", f), real(f, data, n, at), real(f, data, n / 2, at));
}
ssize_t pwrite64(int f, const void *data, size_t n, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    WRITING(meet_file("pwrite", f), real(f, data, n, at), real(f, data, n / 2, at));
}
ssize_t writev(int f, const struct iovec *parts, int n) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    AROUND(meet_file("writev", f), real(f, parts, n));
}
ssize_t send(int f, const void *data, size_t n, int flags) {
    REAL(ssize_t, send, int, const void *, size_t, int);
    WRITING(meet_server(f, n ? *(const char *)data : 0), real(f, data, n, flags), real(f, data, n / 2, flags));
}
ssize_t sendfile(int f, int from, off_t *at, size_t n) {
    REAL(ssize_t, sendfile, int, int, off_t *, size_t);
    AROUND(meet_file("sendfile", f), real(f, from, at, n));
}
ssize_t sendfile64(int f, int from, off64_t *at, size_t n) {
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
    AROUND(meet_file("sendfile", f), real(f, from, at, n));
}
int fsync(int f) { REAL(int, fsync, int); AROUND(meet_file("fsync", f), real(f)); }
int fdatasync(int f) { REAL(int, fdatasync, int); AROUND(meet_file("fsync", f), real(f)); }
int ftruncate(int f, off_t n) { REAL(int, ftruncate, int, off_t); AROUND(meet_file("truncate", f), real(f, n)); }
int ftruncate64(int f, off64_t n) { REAL(int, ftruncate64, int, off64_t); AROUND(meet_file("truncate", f), real(f, n)); }
int rename(const char *a, const char *b) {
    REAL(int, rename, const char *, const char *);
    AROUND(meet_name("rename", AT_FDCWD, b), real(a, b));
}
int renameat(int c, const char *a, int d, const char *b) {
    REAL(int, renameat, int, const char *, int, const char *);
    AROUND(meet_name("rename", d, b), real(c, a, d, b));
}
int renameat2(int c, const char *a, int d, const char *b, unsigned flags) {
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    AROUND(meet_name("rename", d, b), real(c, a, d, b, flags));
}
int unlink(const char *a) { REAL(int, unlink, const char *); AROUND(meet_name("unlink", AT_FDCWD, a), real(a)); }
int unlinkat(int d, const char *a, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    AROUND(meet_name("unlink", d, a), real(d, a, flags));
}
int rmdir(const char *a) { REAL(int, rmdir, const char *); AROUND(meet_name("rmdir", AT_FDCWD, a), real(a)); }
int mkdir(const char *a, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    AROUND(meet_name("mkdir", AT_FDCWD, a), real(a, mode));
}
int mkdirat(int d, const char *a, mode_t mode) {
    REAL(int, mkdirat, int, const char *, mode_t);
    AROUND(meet_name("mkdir", d, a), real(d, a, mode));
}

#define OPENING(name, prototype, folder, path, call) \
    int name prototype { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        call \
        if (!(flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC))) return GO; \
        AROUND(meet_name("open", folder, path), GO); \
    }
#define GO real(path, flags, mode)
OPENING(open, (const char *path, int flags, ...), AT_FDCWD, path, REAL(int, open, const char *, int, ...);)
OPENING(open64, (const char *path, int flags, ...), AT_FDCWD, path, REAL(int, open64, const char *, int, ...);)
#undef GO
#define GO real(d, path, flags, mode)
OPENING(openat, (int d, const char *path, int flags, ...), d, path, REAL(int, openat, int, const char *, int, ...);)
OPENING(openat64, (int d, const char *path, int flags, ...), d, path, REAL(int, openat64, int, const char *, int, ...);)
