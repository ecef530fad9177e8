/* Drives the reader of SRTCP under AddressSanitizer and UBSan with authentic, repeated, damaged and short packets.

   Usage: harness ROUNDS SEED. Prints nothing and returns 0 when every promise held. A list of all that was taken says
   what must not be taken again. */

#include <stdio.h>
#include <stdlib.h>

#include "cipher.c"

#include "noise.h"
#include "require.h"

#if defined(FAST)

enum { SPEAKERS = BC_SPEAKERS + 3, INDICES = 3000 };

static uint8_t taken[SPEAKERS][INDICES];
static uint32_t newest[SPEAKERS];

/* RFC 7714 section 9: what a viewer would send. */
FAST static void protect(const bc_keys *keys, uint32_t trailer, uint8_t *packet, uint32_t size) {
    uint8_t open[CONTROL + TRAILER];
    uint32_t word = __builtin_bswap32(trailer);
    const __m128i nonce = nonce_of(keys, packet + 4, trailer & INDEX);
    if (trailer & ENCRYPTED) {
        memcpy(open, packet, CONTROL);
        memcpy(open + CONTROL, &word, TRAILER);
        store(packet + size, crypt(keys, nonce, open, sizeof open, packet + CONTROL, NULL, size - CONTROL, 0));
    } else {
        memcpy(packet + size, &word, TRAILER);
        store(packet + size, crypt(keys, nonce, packet, size + TRAILER, packet, NULL, 0, 0));
    }
    memcpy(packet + size + BLOCK, &word, TRAILER);
}

static void play(bc_control *control) {
    uint32_t speaker = draw(SPEAKERS), size = CONTROL + (draw(4) ? draw(80) : draw(600));
    uint32_t index = newest[speaker] + draw(draw(20) ? 4 : 300);
    index = index < 2 ? 0 : draw(3) ? index - 2 : index > 140 ? index - draw(140) : draw(index + 1);
    index = index < INDICES ? index : INDICES - 1;
    uint8_t *plain = malloc(size), *packet = malloc(size + BLOCK + TRAILER); /* exact, so that going on is seen */
    REQUIRE(plain && packet);
    for (uint32_t place = 0; place < size; place++)
        plain[place] = (uint8_t)draw(256);
    memcpy(plain + 4, &speaker, sizeof speaker);
    memcpy(packet, plain, size);
    protect(&control->keys, index | (draw(5) ? ENCRYPTED : 0), packet, size);
    int length = (int)(size + BLOCK + TRAILER), damaged = 0;
    if (draw(4) == 0) {
        damaged = 1;
        packet[draw((uint32_t)length)] ^= (uint8_t)(1 + draw(255));
    } else if (draw(4) == 0) {
        damaged = 1;
        length = (int)draw((uint32_t)length);
        packet = realloc(packet, length ? (size_t)length : 1);
        REQUIRE(packet);
    }
    uint32_t known = control->known;
    bc_control before = *control;
    if (bc_unseal(control, packet, &length)) {
        int old = taken[speaker][index] || index + WINDOW <= newest[speaker];
        int known_speaker = 0;
        for (uint32_t number = 0; number < known; number++)
            known_speaker |= control->speakers[number].ssrc == speaker;
        REQUIRE(damaged || old || (!known_speaker && known == BC_SPEAKERS));
        before.speakers[known % BC_SPEAKERS] = control->speakers[known % BC_SPEAKERS]; /* of nobody, unless all are known */
        REQUIRE(known == BC_SPEAKERS || memcmp(&before, control, sizeof before) == 0);
    } else {
        REQUIRE(!damaged && !taken[speaker][index] && index + WINDOW > newest[speaker]);
        REQUIRE(length == (int)size && memcmp(packet, plain, size) == 0);
        taken[speaker][index] = 1;
        newest[speaker] = index > newest[speaker] ? index : newest[speaker];
        REQUIRE(control->known <= BC_SPEAKERS);
    }
    free(plain);
    free(packet);
}

int main(int count, char **arguments) {
    REQUIRE(count == 3);
    noise = strtoull(arguments[2], NULL, 10) * 2 + 1;
    for (int number = 0; number < atoi(arguments[1]); number++) {
        if (number % 3000 == 0) {
            memset(taken, 0, sizeof taken);
            memset(newest, 0, sizeof newest);
        }
        static bc_control control;
        uint8_t master[28];
        for (uint32_t place = 0; place < sizeof master; place++)
            master[place] = (uint8_t)draw(256);
        if (number % 3000 == 0 && !bc_control_open(&control, master))
            return 0;
        play(&control);
    }
    return 0;
}

#else

int main(void) { return 0; }

#endif
