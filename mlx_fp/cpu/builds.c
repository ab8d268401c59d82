/* Stand in for the `popen` of MLX, which runs the compiler: with a better command, and to its end after Ctrl-C.
 *
 * A terminal sends Ctrl-C to the compiler, too. MLX would then miss a kernel and raise an error. So the shell ignores
 * the signals that end a program, and Python handles them when the kernel is there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

typedef char *rewriter(const char *command); /* returns new memory, or NULL for a command that must not run */

enum { TRIES = 100 };

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

/* Run a command and return its status; `text` gets its output. A signal interrupts a call, but not the command. */
static int run(const char *command, char **text) {
  char part[4096];
  size_t bytes, length;
  FILE *output = popen(command, "r"), *memory = open_memstream(text, &length);
  while (output && memory && !feof(output)) {
    clearerr(output);
    bytes = fread(part, 1, sizeof part, output);
    fwrite(part, 1, bytes, memory);
    if (ferror(output) && errno != EINTR)
      break;
  }
  if (memory)
    fclose(memory);
  return output ? pclose(output) : -1;
}

/* Return a file from which MLX reads the output, and whose `pclose` returns the status. */
FILE *mlx_fp_popen(const char *command, const char *mode) {
  char *line = rewritten(command), *all = NULL, *text = NULL;
  FILE *file = NULL;
  int status = -1, tries = 0;
  if (line && asprintf(&all, "trap '' INT TERM HUP\n%s", line) > 0)
    do { /* a signal may end the shell before it ignores signals */
      free(text);
      status = run(all, &text);
    } while (status > 0 && WIFSIGNALED(status) && ++tries < TRIES);
  free(line);
  free(all);
  if (status == 0)
    file = fopen("/dev/null", mode);
  else if (status > 0 && asprintf(&all, "cat <<'mlx_fp'\n%s\nmlx_fp\nexit %d", text, WEXITSTATUS(status)) > 0) {
    file = popen(all, mode);
    free(all);
  }
  free(text);
  return file;
}
