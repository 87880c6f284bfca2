/* Counts what a process does to the files below one folder, and lets the n-th of these events go wrong.
 *
 * Loaded with LD_PRELOAD, it stands between the process, SQLite included, and the C library: whatever creates, writes,
 * renames, removes or syncs a file below CHAOS_ROOT is an event. Events are serial, so that the disk is at each of them
 * as a killed process would leave it there. CHAOS_AT says at which event, counted from 1, CHAOS_ACTION takes place:
 *
 *   kill   the process dies before the event
 *   torn   the first half of what is written is written, then the process dies; of what is no write as with kill
 *   full   from this event on nothing can be created or written: no space left on device
 *
 * CHAOS_UNREADABLE names a file by a part of its path: the first such file that is read cannot be, for an input/output
 * error, whatever it is called later; one that takes its place can. CHAOS_LOG receives a line for each event: its number,
 * kind, path and size. chaos_arm() begins anew in a process that was forked.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { NOTHING, KILL, TORN, FULL };

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static const char *unreadable;
static long at, count;
static enum action action;
static int log_file = -1, commit_follows;
static ino_t bad;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void chaos_arm(const char *folder, long event, const char *what, const char *log) {
    snprintf(root, sizeof root, "%s/", folder);
    at = event;
    count = 0;
    bad = 0;
    action = !strcmp(what, "kill") ? KILL : !strcmp(what, "torn") ? TORN : !strcmp(what, "full") ? FULL : NOTHING;
    unreadable = getenv("CHAOS_UNREADABLE");
    log_file = *log ? REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("CHAOS_ROOT"), *event = getenv("CHAOS_AT"), *what = getenv("CHAOS_ACTION");
    const char *log = getenv("CHAOS_LOG");
    if (folder) chaos_arm(folder, event ? atol(event) : 0, what ? what : "", log ? log : "");
}

/* The part of a path below the root; NULL of a path elsewhere, or of Prefect's own files and SQLite's shared memory. */
static const char *below(const char *path) {
    size_t length = strlen(root), all = path ? strlen(path) : 0;
    if (!length || all <= length || strncmp(path, root, length)) return NULL;
    path += length;
    if (!strncmp(path, ".layerwise/prefect/", 19)) return NULL;
    return all > 4 && !strcmp(path + strlen(path) - 4, "-shm") ? NULL : path;
}

static const char *absolute(int folder, const char *path, char *room) {
    char base[PATH_MAX], name[64];
    if (!path || path[0] == '/') return path;
    if (folder == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return NULL;
    } else {
        snprintf(name, sizeof name, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(name, base, sizeof base - 1);
        if (length < 0) return NULL;
        base[length] = 0;
    }
    snprintf(room, PATH_MAX, "%s/%s", base, path);
    return room;
}

static const char *of_descriptor(int file, char *room) {
    char name[64];
    if (!*root) return NULL;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, room, PATH_MAX - 1);
    if (length < 0) return NULL;
    room[length] = 0;
    return below(room);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Notes an event; returns how much of it may happen: -1 all, 0 nothing (errno is set), else bytes, then die. */
static ssize_t event(const char *kind, const char *path, size_t size, int grows) {
    char line[PATH_MAX + 64];
    count++;
    if (log_file >= 0) {
        int length = snprintf(line, sizeof line, "%ld %s %s %zu\n", count, kind, path, size);
        if (REAL(write)(log_file, line, length) < 0) log_file = -1;
    }
    if (!at || count < at || action == NOTHING) return -1;
    if (action == FULL) {
        if (!grows) return -1;
        errno = ENOSPC;
        return 0;
    }
    if (count > at) return -1;
    if (action == TORN && size > 1) return size / 2;
    die();
    return 0;
}

#define LOCKED(expression) \
    ({ pthread_mutex_lock(&one_at_a_time); __typeof__(expression) r = (expression); int e = errno; \
       pthread_mutex_unlock(&one_at_a_time); errno = e; r; })

/* --- open --- */

static int opened(int (*real)(int, const char *, int, ...), int folder, const char *path, int flags, mode_t mode) {
    char room[PATH_MAX];
    const char *here = *root && flags & (O_CREAT | O_TRUNC) ? below(absolute(folder, path, room)) : NULL;
    if (!here || (!(flags & O_TRUNC) && !access(path, F_OK))) return real(folder, path, flags, mode);
    return LOCKED(event("create", here, 0, 1) ? real(folder, path, flags, mode) : -1);
}

#define OPEN(name, at_name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return opened(REAL(at_name), AT_FDCWD, path, flags, mode); } \
    int at_name(int folder, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return opened(REAL(at_name), folder, path, flags, mode); }

OPEN(open, openat)
OPEN(open64, openat64)

/* --- write --- */

/* A frame of a write-ahead log has a header of 24 bytes; in a transaction's last one, bytes 4 to 7 are not all zero. */
static const char *kind_of_write(const char *path, const void *content, size_t size) {
    size_t length = strlen(path);
    if (length < 4 || strcmp(path + length - 4, "-wal")) return "write";
    const char *kind = size == 24 ? "frame" : commit_follows ? "commit" : "write";
    commit_follows = size == 24 && memcmp((const char *)content + 4, "\0\0\0\0", 4);
    return kind;
}

static ssize_t written(int file, const void *content, size_t size, off64_t offset) {
    char room[PATH_MAX];
    const char *path = of_descriptor(file, room);
    ssize_t allowed = path ? event(kind_of_write(path, content, size), path, size, 1) : -1;
    if (!allowed) return -1;
    size_t now = allowed < 0 ? size : (size_t)allowed;
    ssize_t done = offset < 0 ? REAL(write)(file, content, now) : REAL(pwrite64)(file, content, now, offset);
    if (allowed > 0) die();
    return done;
}

ssize_t write(int file, const void *content, size_t size) {
    char room[PATH_MAX];
    if (!of_descriptor(file, room)) return REAL(write)(file, content, size);  /* pipes may block */
    return LOCKED(written(file, content, size, -1));
}
ssize_t pwrite(int file, const void *content, size_t size, off_t offset) {
    return LOCKED(written(file, content, size, offset));
}
ssize_t pwrite64(int file, const void *content, size_t size, off64_t offset) {
    return LOCKED(written(file, content, size, offset));
}
ssize_t writev(int file, const struct iovec *parts, int number) {
    char room[PATH_MAX];
    const char *path = of_descriptor(file, room);
    if (!path) return REAL(writev)(file, parts, number);
    return LOCKED(event("write", path, 0, 1) ? REAL(writev)(file, parts, number) : -1);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t size) {
    char room[PATH_MAX];
    const char *path = of_descriptor(to, room);
    if (!path) return REAL(sendfile)(to, from, offset, size);
    return LOCKED(event("write", path, 0, 1) ? REAL(sendfile)(to, from, offset, size) : -1);
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) {
    char room[PATH_MAX];
    const char *path = of_descriptor(to, room);
    if (!path) return REAL(sendfile64)(to, from, offset, size);
    return LOCKED(event("write", path, 0, 1) ? REAL(sendfile64)(to, from, offset, size) : -1);
}
ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *place, size_t size, unsigned flags) {
    char room[PATH_MAX];
    const char *path = of_descriptor(to, room);
    if (!path) return REAL(copy_file_range)(from, start, to, place, size, flags);
    return LOCKED(event("write", path, 0, 1) ? REAL(copy_file_range)(from, start, to, place, size, flags) : -1);
}

#define ON_FILE(name, kind, grows, parameters, arguments, first) \
    int name parameters { \
        char room[PATH_MAX]; \
        const char *path = of_descriptor(first, room); \
        return !path ? REAL(name) arguments : LOCKED(event(kind, path, 0, grows) ? REAL(name) arguments : -1); }

ON_FILE(fsync, "fsync", 0, (int file), (file), file)
ON_FILE(fdatasync, "fsync", 0, (int file), (file), file)
ON_FILE(syncfs, "syncfs", 0, (int file), (file), file)
ON_FILE(ftruncate, "truncate", 0, (int file, off_t size), (file, size), file)
ON_FILE(ftruncate64, "truncate", 0, (int file, off64_t size), (file, size), file)

/* --- names --- */

#define ON_NAME(name, kind, grows, parameters, arguments, folder, last) \
    int name parameters { \
        char room[PATH_MAX]; \
        const char *path = *root ? below(absolute(folder, last, room)) : NULL; \
        return !path ? REAL(name) arguments : LOCKED(event(kind, path, 0, grows) ? REAL(name) arguments : -1); }

ON_NAME(rename, "rename", 0, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_NAME(renameat, "rename", 0, (int a, const char *from, int b, const char *to), (a, from, b, to), b, to)
ON_NAME(link, "link", 1, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_NAME(unlink, "unlink", 0, (const char *name), (name), AT_FDCWD, name)
ON_NAME(unlinkat, "unlink", 0, (int folder, const char *name, int flags), (folder, name, flags), folder, name)
ON_NAME(rmdir, "rmdir", 0, (const char *name), (name), AT_FDCWD, name)
ON_NAME(mkdir, "mkdir", 1, (const char *name, mode_t mode), (name, mode), AT_FDCWD, name)
ON_NAME(mkdirat, "mkdir", 1, (int folder, const char *name, mode_t mode), (folder, name, mode), folder, name)
ON_NAME(truncate, "truncate", 0, (const char *name, off_t size), (name, size), AT_FDCWD, name)

/* --- read --- */

static int is_unreadable(int file) {
    char room[PATH_MAX];
    struct stat found;
    if (!unreadable || !*unreadable || fstat(file, &found)) return 0;
    const char *path = bad ? NULL : of_descriptor(file, room);
    if (path && strstr(path, unreadable)) bad = found.st_ino;
    return bad && found.st_ino == bad && S_ISREG(found.st_mode);
}

#define READ(name, parameters, arguments) \
    ssize_t name parameters { \
        if (!is_unreadable(file)) return REAL(name) arguments; \
        errno = EIO; \
        return -1; }

READ(read, (int file, void *content, size_t size), (file, content, size))
READ(pread, (int file, void *content, size_t size, off_t offset), (file, content, size, offset))
READ(pread64, (int file, void *content, size_t size, off64_t offset), (file, content, size, offset))
