/* Stand in for the `popen` of MLX, which runs the compiler of kernels: change its command. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef char *rewriter(const char *command); /* returns new memory, or NULL for a command that must not run */

static char *before, *options;
static rewriter *other; /* in place of the precompiled header */

/* Set the shell commands before each call of g++, and the options that are added to it. */
void mlx_fp_set_builds(const char *commands_before, const char *more_options) {
  before = strdup(commands_before);
  options = strdup(more_options);
}

void mlx_fp_set_rewriter(rewriter *rewrite) { other = rewrite; }

static char *rewritten(const char *command) {
  static const char compiler[] = "g++ ";
  char *line;
  if (other)
    return other(command);
  if (!before || strncmp(command, compiler, strlen(compiler)))
    return strdup(command);
  return asprintf(&line, "%s\n%s%s %s", before, compiler, options, command + strlen(compiler)) < 0 ? NULL : line;
}

FILE *mlx_fp_popen(const char *command, const char *mode) {
  char *line = rewritten(command);
  FILE *output = line ? popen(line, mode) : NULL;
  free(line);
  return output;
}
