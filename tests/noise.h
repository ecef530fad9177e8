/* Numbers for the harnesses that look random and are the same each time; set `noise` to any odd number first. */

#include <stdint.h>

static uint64_t noise;

static inline uint32_t draw(uint32_t below) { /* xorshift64* */
    noise ^= noise >> 12;
    noise ^= noise << 25;
    noise ^= noise >> 27;
    return (uint32_t)((noise * 2685821657736338717ull) >> 33) % below;
}
