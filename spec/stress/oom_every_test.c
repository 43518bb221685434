/* The test of spec/c/oom_test.c, with every request of every sweep refused. */
#define OOM_SAMPLES LONG_MAX
#include "../c/oom_test.c"
