/* A simulation of a network file system, for tests: a FUSE layer over a folder, mounted once by each machine.
 *
 *   nfs_like --backing=FOLDER --remember=SECONDS [--refuse-locks] -f MOUNTPOINT
 *
 * As with NFS, a machine remembers for some time which names there are and which there are not, unless it lists the
 * folder (nfs(5), "Directory entry caching"); data and sizes are those of the server. Locks hold on all machines.
 * On SIGUSR1 the machine is cut off: everything it asks for fails, and the locks it has stay until this process ends,
 * as those of a client that is gone stay until its lease is over. With --refuse-locks there is no lock service.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static struct options { char *backing; int remember; int refuse_locks; } options;
static const struct fuse_opt known[] = {
    {"--backing=%s", offsetof(struct options, backing), 0},
    {"--remember=%d", offsetof(struct options, remember), 0},
    {"--refuse-locks", offsetof(struct options, refuse_locks), 1},
    FUSE_OPT_END};

static volatile sig_atomic_t cut_off;
static void on_usr1(int number) { (void)number; cut_off = 1; }

/* The path below, in the variable `name`; the error of a machine that is cut off. */
#define REAL(name, path)                                                                \
  char name[PATH_MAX];                                                                  \
  if (cut_off) return -ESTALE;                                                          \
  if (snprintf(name, sizeof name, "%s%s", options.backing, path) >= (int)sizeof name) return -ENAMETOOLONG
#define ANSWER(call) return (call) == -1 ? -errno : 0

static void *start(struct fuse_conn_info *conn, struct fuse_config *config) {
  config->use_ino = 1;
  config->entry_timeout = config->negative_timeout = options.remember;
  config->attr_timeout = 0;
  conn->want = (conn->want | (conn->capable & FUSE_CAP_READDIRPLUS)) & ~FUSE_CAP_READDIRPLUS_AUTO;
  return NULL;
}

static int get_attributes(const char *path, struct stat *found, struct fuse_file_info *file) {
  (void)file;
  REAL(real, path);
  ANSWER(lstat(real, found));
}

static int list(const char *path, void *to, fuse_fill_dir_t fill, off_t from, struct fuse_file_info *file,
                enum fuse_readdir_flags flags) {
  (void)file, (void)flags;
  REAL(real, path);
  DIR *folder = opendir(real);
  if (!folder) return -errno;
  if (from) seekdir(folder, from);
  for (struct dirent *entry; (entry = readdir(folder));) {
    struct stat found;
    if (fstatat(dirfd(folder), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
        fill(to, entry->d_name, &found, entry->d_off, FUSE_FILL_DIR_PLUS))
      break; /* full: the rest is asked for with the offset of the last one that went in */
  }
  closedir(folder);
  return 0;
}

static int make_folder(const char *path, mode_t mode) { REAL(real, path); ANSWER(mkdir(real, mode)); }
static int remove_folder(const char *path) { REAL(real, path); ANSWER(rmdir(real)); }
static int remove_file(const char *path) { REAL(real, path); ANSWER(unlink(real)); }
static int read_link(const char *path, char *to, size_t size) {
  REAL(real, path);
  ssize_t length = readlink(real, to, size - 1);
  if (length < 0) return -errno;
  to[length] = 0;
  return 0;
}
static int make_link(const char *target, const char *path) { REAL(real, path); ANSWER(symlink(target, real)); }
static int rename_file(const char *old, const char *new, unsigned flags) {
  REAL(from, old);
  REAL(to, new);
  ANSWER(renameat2(AT_FDCWD, from, AT_FDCWD, to, flags));
}
static int change_mode(const char *path, mode_t mode, struct fuse_file_info *file) {
  (void)file;
  REAL(real, path);
  ANSWER(chmod(real, mode));
}
static int change_times(const char *path, const struct timespec times[2], struct fuse_file_info *file) {
  (void)file;
  REAL(real, path);
  ANSWER(utimensat(AT_FDCWD, real, times, AT_SYMLINK_NOFOLLOW));
}
static int cut(const char *path, off_t size, struct fuse_file_info *file) {
  (void)file;
  REAL(real, path);
  ANSWER(truncate(real, size));
}
static int space(const char *path, struct statvfs *found) { REAL(real, path); ANSWER(statvfs(real, found)); }

static int open_with(const char *path, int flags, mode_t mode, struct fuse_file_info *file) {
  REAL(real, path);
  int opened = open(real, flags & ~O_APPEND, mode); /* the kernel on top appends */
  if (opened < 0) return -errno;
  file->fh = opened;
  return 0;
}
static int open_file(const char *path, struct fuse_file_info *file) { return open_with(path, file->flags, 0, file); }
static int create_file(const char *path, mode_t mode, struct fuse_file_info *file) {
  return open_with(path, file->flags, mode, file);
}
static int read_file(const char *path, char *to, size_t size, off_t from, struct fuse_file_info *file) {
  (void)path;
  ssize_t done = cut_off ? (errno = ESTALE, -1) : pread(file->fh, to, size, from);
  return done < 0 ? -errno : (int)done;
}
static int write_file(const char *path, const char *data, size_t size, off_t to, struct fuse_file_info *file) {
  (void)path;
  ssize_t done = cut_off ? (errno = ESTALE, -1) : pwrite(file->fh, data, size, to);
  return done < 0 ? -errno : (int)done;
}
static int sync_file(const char *path, int data_only, struct fuse_file_info *file) {
  (void)path, (void)data_only;
  return cut_off ? -ESTALE : fsync(file->fh) == -1 ? -errno : 0;
}
static int lock_file(const char *path, struct fuse_file_info *file, int operation) {
  (void)path;
  if (cut_off) return -ESTALE;
  if (options.refuse_locks) return -ENOLCK;
  ANSWER(flock(file->fh, operation));
}
static int close_file(const char *path, struct fuse_file_info *file) {
  (void)path;
  if (!cut_off) close(file->fh);
  return 0;
}

static const struct fuse_operations operations = {
    .init = start, .getattr = get_attributes, .readdir = list, .mkdir = make_folder, .rmdir = remove_folder,
    .unlink = remove_file, .readlink = read_link, .symlink = make_link, .rename = rename_file, .chmod = change_mode,
    .utimens = change_times, .truncate = cut, .statfs = space, .open = open_file, .create = create_file,
    .read = read_file, .write = write_file, .fsync = sync_file, .flock = lock_file, .release = close_file};

int main(int count, char **words) {
  struct fuse_args arguments = FUSE_ARGS_INIT(count, words);
  if (fuse_opt_parse(&arguments, &options, known, NULL) == -1 || !options.backing) return 2;
  signal(SIGUSR1, on_usr1);
  return fuse_main(arguments.argc, arguments.argv, &operations, NULL);
}
