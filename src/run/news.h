/* tdl_news: what the home of a pool hears though no job comes: that there is room
** for a call, that the workers have come to rest, that a guest was settled, that
** there is a job that it could run itself, that the pool is closed.
** Threads: below.
** Owns:    nothing: its fields are the pool's (P6 to P9).
** Fails:   never. */
#ifndef TDL_NEWS_H
#define TDL_NEWS_H

#include "pool.h"

enum tdl_news {
  TDL_NEWS_ROOM = 1,
  TDL_NEWS_CALM = 2,
  TDL_NEWS_SETTLED = 4,
  TDL_NEWS_WORK = 8,    /* to wake it is all */
  TDL_NEWS_CLOSED = 16, /* the pool is, and had no thread that could say it */
  TDL_NEWS_COUNTS = 128 /* its calls or workers are not as many as before */
};

void tdl_news_init(treadle_pool *pool);

/* home; it leaves the pool: no note is under way after this but those that are
** in its inbox. */
void tdl_news_end(treadle_pool *pool);

/* submitter, the loop at `from`, after its push; home, when it finds nothing to
** do: 1 when it has said so already (P9). */
void tdl_news_of_work(treadle_pool *pool, const treadle_loop *from);
int tdl_news_idle(treadle_pool *pool);

/* any thread that has a reference; nothing once the home has left the pool. The
** second: a note of the caller's, with a reference of its own (P1); 0 when it
** still is the caller's. */
void tdl_news_tell(treadle_pool *pool, enum tdl_news news);
int tdl_news_post(treadle_pool *pool, tdl_note *note);

/* home; how many calls the pool takes now (P6), below 1: none. The second wants
** the event TDL_POOL_ROOM as soon as that changes. */
int64_t tdl_pool_room(const treadle_pool *pool);
int64_t tdl_pool_want_room(treadle_pool *pool);

/* any thread that keeps the pool; there may be more of it now. */
void tdl_pool_look_at_room(treadle_pool *pool);

/* home; from now on it hears TDL_POOL_CALM whenever the workers come to rest,
** if they rest already once more; or no longer (P7). */
void tdl_pool_watch(treadle_pool *pool);
void tdl_pool_unwatch(treadle_pool *pool);
int tdl_pool_is_watched(const treadle_pool *pool);

/* worker; it is quiet and falls asleep; it gets up. */
void tdl_pool_calm(treadle_pool *pool);
void tdl_pool_stir(treadle_pool *pool);

/* home; how many calls of its own on the pool are still away, and of these, how
** many are settled. */
uint32_t tdl_pool_calls(const treadle_pool *pool, uint32_t *settled);

#endif
