/* Project quotas: a number on a folder, inherited by all that is made in it, and a limit for each number.
   Every function returns >= 0, or -errno. Read by cffi too. */
#ifndef LS_QUOTA_H
#define LS_QUOTA_H
#include <stdint.h>

/* Puts a folder and all that will be made in it into a project. */
int ls_set_project(int folder, uint32_t project);
int ls_project_of(int folder, uint32_t *project);
/* What the filesystem does about projects. */
enum { LS_QUOTA_OFF = 0, LS_QUOTA_COUNTED = 1, LS_QUOTA_ENFORCED = 2 };
int ls_project_quota_state(int fd);
/* Bytes; 0 is no limit. */
int ls_limit_project(int fd, uint32_t project, uint64_t bytes);
int ls_project_usage(int fd, uint32_t project, uint64_t *bytes, uint64_t *limit);
#endif
