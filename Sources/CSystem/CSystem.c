#define _GNU_SOURCE
#include "CSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define CHECKED(call) do { __typeof__(call) r_ = (call); return r_ < 0 ? -errno : r_; } while (0)
// A call that a signal interrupted is made again: a backup does not fail because a timer ticked.
#define RETRIED(call) do { __typeof__(call) r_; do { r_ = (call); } while (r_ < 0 && errno == EINTR); \
    return r_ < 0 ? -errno : r_; } while (0)

const int CSYS_O_PATH = O_PATH, CSYS_O_NOATIME = O_NOATIME, CSYS_O_TMPFILE = O_TMPFILE,
          CSYS_O_DIRECTORY = O_DIRECTORY, CSYS_O_NOFOLLOW = O_NOFOLLOW, CSYS_O_CLOEXEC = O_CLOEXEC,
          CSYS_O_NONBLOCK = O_NONBLOCK;

static void from_stat(const struct stat *s, csys_stat *out) {
    out->inode = s->st_ino;
    out->size = (uint64_t)s->st_size;
    out->blocks = (uint64_t)s->st_blocks;
    out->mtime_sec = s->st_mtim.tv_sec;
    out->mtime_nsec = (uint32_t)s->st_mtim.tv_nsec;
    out->ctime_sec = s->st_ctim.tv_sec;
    out->ctime_nsec = (uint32_t)s->st_ctim.tv_nsec;
    out->btime_sec = 0;
    out->btime_nsec = 0;
    out->has_btime = 0;
    out->mode = s->st_mode;
    out->uid = s->st_uid;
    out->gid = s->st_gid;
    out->links = (uint32_t)s->st_nlink;
    out->device_major = major(s->st_dev);
    out->device_minor = minor(s->st_dev);
    out->rdev_major = major(s->st_rdev);
    out->rdev_minor = minor(s->st_rdev);
}

int csys_lstatat(int dirfd, const char *name, csys_stat *out) {
    struct stat s;
    if (fstatat(dirfd, name, &s, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) return -errno;
    from_stat(&s, out);
    return 0;
}

int csys_fstat(int fd, csys_stat *out) {
    struct stat s;
    if (fstat(fd, &s) < 0) return -errno;
    from_stat(&s, out);
    return 0;
}

int csys_statx(int dirfd, const char *name, csys_stat *out) {
    struct statx s;
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_SYNC_AS_STAT;
    if (name[0] == 0) flags |= AT_EMPTY_PATH;
    if (statx(dirfd, name, flags, STATX_BASIC_STATS | STATX_BTIME, &s) < 0) return -errno;
    out->inode = s.stx_ino;
    out->size = s.stx_size;
    out->blocks = s.stx_blocks;
    out->mtime_sec = s.stx_mtime.tv_sec;
    out->mtime_nsec = s.stx_mtime.tv_nsec;
    out->ctime_sec = s.stx_ctime.tv_sec;
    out->ctime_nsec = s.stx_ctime.tv_nsec;
    out->has_btime = (s.stx_mask & STATX_BTIME) != 0;
    out->btime_sec = out->has_btime ? s.stx_btime.tv_sec : 0;
    out->btime_nsec = out->has_btime ? s.stx_btime.tv_nsec : 0;
    out->mode = s.stx_mode;
    out->uid = s.stx_uid;
    out->gid = s.stx_gid;
    out->links = s.stx_nlink;
    out->device_major = s.stx_dev_major;
    out->device_minor = s.stx_dev_minor;
    out->rdev_major = s.stx_rdev_major;
    out->rdev_minor = s.stx_rdev_minor;
    return 0;
}

long csys_getdents(int fd, void *buffer, size_t size) { RETRIED(syscall(SYS_getdents64, fd, buffer, size)); }

int csys_open(const char *path, int flags, uint32_t mode) { RETRIED(open(path, flags, (mode_t)mode)); }
int csys_openat(int dirfd, const char *name, int flags, uint32_t mode) {
    RETRIED(openat(dirfd, name, flags, (mode_t)mode));
}
int csys_open_beneath(int dirfd, const char *path, int flags, uint32_t mode) {
    struct open_how how;
    memset(&how, 0, sizeof how);
    how.flags = (uint64_t)(unsigned)flags;
    how.mode = (flags & (O_CREAT | O_TMPFILE)) ? mode : 0;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    long r;
    // EAGAIN: a rename somewhere above raced with the look-up; the kernel asks to try again.
    int tries = 0;
    do { r = syscall(SYS_openat2, dirfd, path, &how, sizeof how); }
    while (r < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < 100)));
    return r < 0 ? -errno : (int)r;
}

long csys_pread(int fd, void *buffer, size_t size, int64_t offset) { RETRIED(pread(fd, buffer, size, offset)); }
long csys_pwrite(int fd, const void *buffer, size_t size, int64_t offset) { RETRIED(pwrite(fd, buffer, size, offset)); }
// EINTR from close leaves the descriptor closed on Linux: never tried again.
int csys_close(int fd) { CHECKED(close(fd)); }
int64_t csys_seek_data(int fd, int64_t offset) { CHECKED((int64_t)lseek(fd, offset, SEEK_DATA)); }
int64_t csys_seek_hole(int fd, int64_t offset) { CHECKED((int64_t)lseek(fd, offset, SEEK_HOLE)); }
int csys_ftruncate(int fd, int64_t size) { RETRIED(ftruncate(fd, size)); }
int csys_fallocate_punch_hole(int fd, int64_t offset, int64_t length) {
    RETRIED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
}
int csys_fsync(int fd) { RETRIED(fsync(fd)); }
int csys_fdatasync(int fd) { RETRIED(fdatasync(fd)); }
int csys_syncfs(int fd) { RETRIED(syncfs(fd)); }
int csys_start_writeback(int fd, int64_t offset, int64_t length) {
    CHECKED(sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE));
}
int csys_fadvise_sequential(int fd) { return -posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL); }
int csys_fadvise_dontneed(int fd, int64_t offset, int64_t length) {
    return -posix_fadvise(fd, offset, length, POSIX_FADV_DONTNEED);
}
int csys_reflink(int destination, int source) { CHECKED(ioctl(destination, FICLONE, source)); }
int csys_reflink_range(int destination, int64_t destination_offset, int source, int64_t source_offset, int64_t length) {
    struct file_clone_range range = {
        .src_fd = source, .src_offset = (uint64_t)source_offset, .src_length = (uint64_t)length,
        .dest_offset = (uint64_t)destination_offset,
    };
    CHECKED(ioctl(destination, FICLONERANGE, &range));
}

long csys_flistxattr(int fd, char *buffer, size_t size) { CHECKED(flistxattr(fd, buffer, size)); }
long csys_fgetxattr(int fd, const char *name, void *buffer, size_t size) { CHECKED(fgetxattr(fd, name, buffer, size)); }
int csys_fsetxattr(int fd, const char *name, const void *value, size_t size) { CHECKED(fsetxattr(fd, name, value, size, 0)); }
int csys_fremovexattr(int fd, const char *name) { CHECKED(fremovexattr(fd, name)); }

// There is no xattr call relative to a directory before Linux 6.13; /proc/self/fd/N/NAME is one, and the
// l-forms do not follow NAME itself. NAME is one component of at most 255 bytes.
static int proc_path(char *path, size_t size, int dirfd, const char *name) {
    int n = snprintf(path, size, "/proc/self/fd/%d/%s", dirfd, name);
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}
#define AT_PATH char path[64 + NAME_MAX + 1]; int p_ = proc_path(path, sizeof path, dirfd, name); if (p_ < 0) return p_
long csys_listxattr_at(int dirfd, const char *name, char *buffer, size_t size) {
    AT_PATH; CHECKED(llistxattr(path, buffer, size));
}
long csys_getxattr_at(int dirfd, const char *name, const char *attribute, void *buffer, size_t size) {
    AT_PATH; CHECKED(lgetxattr(path, attribute, buffer, size));
}
int csys_setxattr_at(int dirfd, const char *name, const char *attribute, const void *value, size_t size) {
    AT_PATH; CHECKED(lsetxattr(path, attribute, value, size, 0));
}
int csys_removexattr_at(int dirfd, const char *name, const char *attribute) {
    AT_PATH; CHECKED(lremovexattr(path, attribute));
}

int csys_getflags(int fd, uint32_t *flags) {
    int value = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &value) < 0) return -errno;
    *flags = (uint32_t)value;
    return 0;
}
int csys_setflags(int fd, uint32_t flags) {
    int value = (int)flags;
    CHECKED(ioctl(fd, FS_IOC_SETFLAGS, &value));
}

long csys_readlinkat(int dirfd, const char *name, char *buffer, size_t size) { CHECKED(readlinkat(dirfd, name, buffer, size)); }
int csys_mkdirat(int dirfd, const char *name, uint32_t mode) { CHECKED(mkdirat(dirfd, name, (mode_t)mode)); }
int csys_symlinkat(const char *target, int dirfd, const char *name) { CHECKED(symlinkat(target, dirfd, name)); }
int csys_linkat(int fromdir, const char *from, int todir, const char *to) { CHECKED(linkat(fromdir, from, todir, to, 0)); }
int csys_link_descriptor(int fd, int todir, const char *to) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECKED(linkat(AT_FDCWD, path, todir, to, AT_SYMLINK_FOLLOW));
}
int csys_mknodat(int dirfd, const char *name, uint32_t mode, uint32_t maj, uint32_t min) {
    CHECKED(mknodat(dirfd, name, (mode_t)mode, makedev(maj, min)));
}
int csys_unlinkat(int dirfd, const char *name, int remove_directory) {
    CHECKED(unlinkat(dirfd, name, remove_directory ? AT_REMOVEDIR : 0));
}
int csys_renameat(int fromdir, const char *from, int todir, const char *to) { CHECKED(renameat(fromdir, from, todir, to)); }
int csys_renameat_noreplace(int fromdir, const char *from, int todir, const char *to) {
    CHECKED(renameat2(fromdir, from, todir, to, RENAME_NOREPLACE));
}
int csys_fchmod(int fd, uint32_t mode) { CHECKED(fchmod(fd, (mode_t)mode)); }
int csys_fchmodat(int dirfd, const char *name, uint32_t mode) { CHECKED(fchmodat(dirfd, name, (mode_t)mode, 0)); }
int csys_fchown(int fd, uint32_t uid, uint32_t gid) { CHECKED(fchown(fd, uid, gid)); }
int csys_lchownat(int dirfd, const char *name, uint32_t uid, uint32_t gid) {
    CHECKED(fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW));
}
int csys_futimens(int fd, int64_t sec, uint32_t nsec) {
    struct timespec times[2] = {{sec, nsec}, {sec, nsec}};
    CHECKED(futimens(fd, times));
}
int csys_lutimensat(int dirfd, const char *name, int64_t sec, uint32_t nsec) {
    struct timespec times[2] = {{sec, nsec}, {sec, nsec}};
    CHECKED(utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW));
}

int csys_fstatfs(int fd, csys_filesystem *out) {
    struct statfs s;
    if (fstatfs(fd, &s) < 0) return -errno;
    out->type_magic = (uint64_t)s.f_type;
    out->block_bytes = (uint64_t)s.f_bsize;
    out->blocks_total = s.f_blocks;
    out->blocks_available = s.f_bavail;
    out->files_available = s.f_ffree;
    return 0;
}

int csys_try_lock(int fd) { RETRIED(flock(fd, LOCK_EX | LOCK_NB)); }
int csys_lock(int fd) { RETRIED(flock(fd, LOCK_EX)); }

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
int64_t csys_realtime_ns(void) { return clock_ns(CLOCK_REALTIME); }
int64_t csys_boottime_ns(void) { return clock_ns(CLOCK_BOOTTIME); }

int csys_random(void *buffer, size_t size) {
    unsigned char *at = buffer;
    while (size > 0) {
        ssize_t n = getrandom(at, size, 0);
        if (n < 0) {
            if (errno == EINTR) continue;
            return -errno;
        }
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

long csys_raise_open_files(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    if (limit.rlim_cur < limit.rlim_max) {
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0) limit.rlim_cur = before;
    }
    return limit.rlim_cur > LONG_MAX ? LONG_MAX : (long)limit.rlim_cur;
}

long csys_peak_memory(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) < 0) return -errno;
    return usage.ru_maxrss * 1024;
}

int csys_terminal(int fd, int *columns) {
    struct winsize size;
    *columns = 0;
    if (!isatty(fd)) return 0;
    // A terminal that does not tell, such as a serial line, is taken for one of the usual width.
    *columns = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    return 1;
}

int csys_terminal_echo(int fd, int on) {
    struct termios t;
    if (tcgetattr(fd, &t) < 0) return -errno;
    int was = (t.c_lflag & ECHO) != 0;
    if (on) t.c_lflag |= ECHO; else t.c_lflag &= ~(tcflag_t)ECHO;
    if (tcsetattr(fd, TCSAFLUSH, &t) < 0) return -errno;
    return was;
}

int csys_chmod_nofollow(int dirfd, const char *name, uint32_t mode) {
    // fchmodat2 (Linux 6.6) is number 452 on every architecture; older headers do not name it.
    long r = syscall(452, dirfd, name, (mode_t)mode, AT_SYMLINK_NOFOLLOW);
    if (r >= 0) return 0;
    if (errno != ENOSYS && errno != EPERM) return -errno;
    int fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -errno;
    struct stat s;
    int result = 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fstat(fd, &s) < 0) result = -errno;
    else if (S_ISLNK(s.st_mode)) result = -ELOOP;
    else if (chmod(path, (mode_t)mode) < 0) result = -errno;
    close(fd);
    return result;
}

long csys_copy_range(int destination, int64_t destination_offset, int source, int64_t source_offset, size_t size) {
    off64_t to = destination_offset, from = source_offset;
    RETRIED(copy_file_range(source, &from, destination, &to, size, 0));
}

int csys_memory_file(const char *name) { CHECKED(memfd_create(name, MFD_CLOEXEC)); }

int csys_pipe(int ends[2]) { CHECKED(pipe2(ends, O_CLOEXEC)); }

void csys_spare_memory(void) {
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD, 8 << 20);
}
