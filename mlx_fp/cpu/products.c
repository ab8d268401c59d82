/* A matrix product in blocks. Each of the threads that are ready takes the next block, until none is left.
 *
 * Threads without a block sleep, and the calling thread waits for blocks that have begun, not for threads. It spins for
 * a short time before it sleeps. On a busy machine a thread may lose its core for milliseconds in the middle of a
 * block. After that the calling thread computes the blocks of the next products alone, of twice as many after each
 * time. The blocks depend on the sizes and the number of threads alone: the bits of a product do not depend on the
 * load.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for cpu_set_t */
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

typedef void gemm(int order, int a_trans, int b_trans, int m, int n, int k, float alpha, const float *a, int lda,
                  const float *b, int ldb, float beta, float *c, int ldc);

enum { ROW_MAJOR = 101, AS_IT_IS = 111 };

/* Edges of a block in elements are multiples of the tiles of a BLAS. */
enum { TILE = 16, SHORTEST_PAUSE = 4, LONGEST_PAUSE = 1024 };

/* Estimated microseconds of a product on one core, and the least for a block. Waking a thread takes 10 to 100. */
static const double PER_MULTIPLICATION = 1 / 40e3, PER_ELEMENT = 1 / 2.5e3, LEAST = 75;

/* Seconds that the calling thread spins at most. Waking it takes longer than most waits for a last block. */
static const double LONGEST_SPIN = 100e-6;

struct product {
  int a_trans, b_trans, m, n, k, lda, ldb, ldc;
  float alpha, beta;
  const float *a, *b;
  float *c;
  int rows, columns; /* blocks along an edge of the result */
  int next;            /* the next block, under the lock */
  _Atomic int running; /* blocks that threads compute now; changed under the lock */
};

static gemm *on_one_core; /* of the BLAS, whose own threads are switched off */
static int threads = 1, helpers;
static cpu_set_t cores; /* those of the helpers, also when a thread on one core starts them */
static struct product *shared; /* the product whose blocks the helpers take */
static int alone, pause_length; /* the next products without helpers, and how many those were the last time */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t begun = PTHREAD_COND_INITIALIZER, ended = PTHREAD_COND_INITIALIZER;

void mlx_fp_set_threads(int count) { threads = count < 1 ? 1 : count; }

void mlx_fp_set_product(gemm *product) {
  on_one_core = product;
  sched_getaffinity(0, sizeof cores, &cores);
}

/* Return where part `index` of `parts` of an edge begins. */
static int begin(int edge, int index, int parts) {
  long tiles = (edge + TILE - 1) / TILE, at = tiles * index / parts * TILE;
  return at < edge ? (int)at : edge;
}

static void compute(const struct product *p, int block) {
  int row = block / p->columns, column = block % p->columns;
  int top = begin(p->m, row, p->rows), bottom = begin(p->m, row + 1, p->rows);
  int left = begin(p->n, column, p->columns), right = begin(p->n, column + 1, p->columns);
  if (top == bottom || left == right)
    return;
  on_one_core(ROW_MAJOR, p->a_trans, p->b_trans, bottom - top, right - left, p->k, p->alpha,
              p->a + (p->a_trans == AS_IT_IS ? (long)top * p->lda : top), p->lda,
              p->b + (p->b_trans == AS_IT_IS ? left : (long)left * p->ldb), p->ldb, p->beta,
              p->c + (long)top * p->ldc + left, p->ldc);
}

/* Compute blocks until none is left. The caller holds the lock. */
static void take_blocks(struct product *p) {
  while (p->next < p->rows * p->columns) {
    int block = p->next++;
    p->running++;
    pthread_mutex_unlock(&lock);
    compute(p, block);
    pthread_mutex_lock(&lock);
    p->running--;
  }
}

static void *help(void *unused) {
  pthread_mutex_lock(&lock);
  for (;;) {
    while (!shared || shared->next >= shared->rows * shared->columns)
      pthread_cond_wait(&begun, &lock);
    struct product *p = shared;
    take_blocks(p);
    if (!p->running)
      pthread_cond_signal(&ended);
  }
  return unused;
}

/* Start the missing helpers, which block all signals: those are for the threads of the program. Holds the lock. */
static void start_helpers(void) {
  sigset_t all, before;
  pthread_t thread;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (helpers < threads - 1 && !pthread_create(&thread, 0, help, 0)) {
    pthread_setaffinity_np(thread, sizeof cores, &cores);
    pthread_detach(thread);
    helpers++;
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
}

/* Choose the blocks: as many as threads, but none of less than LEAST, and with the shortest edges. */
static void cut(struct product *p) {
  double us = PER_MULTIPLICATION * p->m * p->n * p->k +
              PER_ELEMENT * ((double)p->m * p->k + (double)p->k * p->n + 2.0 * p->m * p->n);
  int blocks = us / LEAST < threads ? (int)(us / LEAST) : threads;
  double shortest = -1;
  p->rows = p->columns = 1;
  for (int rows = 1; rows <= blocks; rows++) {
    double edges = (double)p->m / rows + (double)p->n / (blocks / rows);
    if (blocks % rows == 0 && (shortest < 0 || edges < shortest)) {
      shortest = edges;
      p->rows = rows;
      p->columns = blocks / rows;
    }
  }
}

static double now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

/* Choose how many products are computed without helpers, after a product with them. */
static void judge(int was_busy) {
  if (was_busy) {
    pause_length = 2 * pause_length > SHORTEST_PAUSE ? 2 * pause_length : SHORTEST_PAUSE;
    pause_length = pause_length < LONGEST_PAUSE ? pause_length : LONGEST_PAUSE;
    alone = pause_length;
  } else
    pause_length -= (pause_length + 63) / 64;
}

/* Wait until no block is computed. The caller holds the lock. */
static void await_blocks(struct product *p) {
  double end = now(CLOCK_MONOTONIC) + LONGEST_SPIN;
  pthread_mutex_unlock(&lock);
  while (p->running && now(CLOCK_MONOTONIC) < end)
    ;
  pthread_mutex_lock(&lock);
  while (p->running)
    pthread_cond_wait(&ended, &lock);
}

/* Compute a product with the helpers. The caller holds the lock. */
static void share(struct product *p) {
  double start = now(CLOCK_MONOTONIC), start_cpu = now(CLOCK_THREAD_CPUTIME_ID), own, cpu, wait;
  shared = p;
  start_helpers();
  for (int block = 1; block < p->rows * p->columns; block++)
    pthread_cond_signal(&begun);
  take_blocks(p);
  own = now(CLOCK_MONOTONIC) - start;
  cpu = now(CLOCK_THREAD_CPUTIME_ID) - start_cpu;
  await_blocks(p);
  wait = now(CLOCK_MONOTONIC) - start - own;
  judge(own > 1.5 * cpu || wait > own); /* another program had the core of this thread, or of a helper */
  shared = 0;
}

static void compute_blocks(struct product *p) {
  pthread_mutex_lock(&lock);
  if (!shared && alone == 0) {
    share(p);
    pthread_mutex_unlock(&lock);
    return;
  }
  alone -= alone > 0; /* otherwise the helpers are busy with a product of another stream */
  pthread_mutex_unlock(&lock);
  for (int block = 0; block < p->rows * p->columns; block++)
    compute(p, block);
}

void mlx_fp_sgemm(int order, int a_trans, int b_trans, int m, int n, int k, float alpha, const float *a, int lda,
                  const float *b, int ldb, float beta, float *c, int ldc) {
  struct product p = {a_trans, b_trans, m, n, k, lda, ldb, ldc, alpha, beta, a, b, c, 1, 1, 0, 0};
  if (order == ROW_MAJOR && threads > 1)
    cut(&p);
  if (p.rows * p.columns == 1)
    on_one_core(order, a_trans, b_trans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  else
    compute_blocks(&p);
}
