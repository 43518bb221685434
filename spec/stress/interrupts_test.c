/* Thousands of states stopped one after the other, in one thread. */
#define STOPS 2000

#include "../c/interrupt_test.c"
