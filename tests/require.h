/* What the harnesses promise: a condition that does not hold ends the process, and the test with it. */

#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(condition)                                                            \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition);     \
            abort();                                                                  \
        }                                                                             \
    } while (0)
