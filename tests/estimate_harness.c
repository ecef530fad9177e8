/* Drives the path estimator under AddressSanitizer and UBSan with hostile feedback, hostile settings and mad clocks.

   Usage: harness ROUNDS SEED. Prints nothing and returns 0 when every promise held. */

#include <stdio.h>
#include <stdlib.h>

#include "estimate.c"

#include "noise.h"
#include "require.h"

enum { MOST = 300 };

static const bc_path_settings sound = {
    .gap = 0.012, .longest = 0.05, .slot = 0.05, .loss_slot = 0.25, .floor = 2, .dark = 1, .stall = 0.2,
    .alarming = 0.25, .guard = 0.025,
    .standing = 0.2, .back_off = 0.9, .hold = 0.4, .severe = 0.08, .shows = 1.3, .inherent = 0.5,
    .scales = 1.1, .alike = 0.8, .judge = 2.5, .forget = 0.3, .burst_age = 4, .span = 1, .smoothing = 0.7, .gain = 4,
    .threshold = 12.5, .lowest = 6, .highest = 600, .up = 0.0087, .down = 0.039, .longest_step = 0.1, .outlier = 15,
    .rise = 0.05, .leap = 0.7, .dip = 0.3, .step = 0.005, .rises = 3,
    .overuse = 0.01, .runs = 128, .window = 10, .short_window = 5, .loss_slots = 8, .burst = 5, .bursts = 5,
    .stretches = 4, .points = 20, .delays = 8, .full = 60};

static uint32_t behaved;

static bc_path *open_path(const bc_path_settings *settings) {
    bc_path *path = malloc(sizeof *path); /* on its own, so that writing on is seen */
    REQUIRE(path);
    bc_path_open(path, settings);
    return path;
}

/* A clock that only runs, or one that leaps as well. */
static uint32_t any_ticks(uint32_t leaps) {
    static uint32_t clock;
    switch (leaps ? draw(4) : 3) {
    case 0: return draw(0x80000000u) * 2 + draw(2);
    case 1: return clock += 0x7FFFFFFF;
    case 2: return clock -= 0x80000000u - draw(3);
    default: return clock += draw(2000);
    }
}

/* Arrivals behind which the sanitizer watches. */
static void report(bc_path *path, double now, uint32_t hostile, uint32_t leaps) {
    uint32_t count = draw(MOST);
    bc_arrival *arrivals = malloc(count * sizeof *arrivals + !count);
    uint16_t sequence = (uint16_t)(path->next - draw(MOST));
    for (uint32_t number = 0; number < count; number++) {
        if (draw(4) < hostile)
            sequence = (uint16_t)draw(0x10000);
        uint8_t received = draw(5) ? (uint8_t)(1 + draw(255)) : 0;
        arrivals[number] = (bc_arrival){any_ticks(leaps), sequence++, received, (uint8_t)draw(256)};
    }
    bc_path_arrived(path, now, arrivals, count);
    free(arrivals);
}

static int is_known_and_wrong(double value) { return !isnan(value) && !(value >= 0.0 && isfinite(value)); }

static void check(const bc_path *path, double now) {
    double loss = bc_path_loss(path, now), excess = bc_path_excess(path, now);
    REQUIRE(!is_known_and_wrong(path->estimate) && !is_known_and_wrong(path->throughput));
    REQUIRE(!is_known_and_wrong(path->delay) && !is_known_and_wrong(bc_path_capacity(path, now)));
    REQUIRE(isnan(loss) || (loss >= 0.0 && loss <= 1.0));
    REQUIRE(excess >= 0.0 && excess <= 1.0 && path->usual_loss >= 0.0 && path->usual_loss <= 1.0);
    REQUIRE(isfinite(path->smoothed) && isfinite(path->trend) && isfinite(path->trendline_threshold));
}

/* A sender and a player in order, 30 frames of 4 packets in a second, whose clock goes on where the last tick was. */
static void behave(bc_path *path, double now, double seconds) {
    uint64_t clock = (uint64_t)path->ticks;
    for (uint32_t frame = 0; frame < (uint32_t)(30 * seconds); frame++) {
        bc_arrival arrivals[4];
        uint16_t sequence = (uint16_t)path->next;
        bc_path_sent(path, now + frame / 30.0, sequence, 4, 4800);
        for (uint32_t number = 0; number < 4; number++)
            arrivals[number] = (bc_arrival){(uint32_t)(clock + (frame * 400 + 2) / 3 + number), sequence++, 1, 0};
        bc_path_arrived(path, now + frame / 30.0 + 0.03, arrivals, 4);
    }
}

/* Whatever feedback says, what is believed stays in its bounds, and who behaves again is judged anew. */
static void try_sound_settings(void) {
    bc_path *path = open_path(&sound);
    double now = draw(1000);
    uint32_t leaps = draw(2);
    for (uint32_t step = 0; step < 60; step++) {
        now += draw(1000) / (draw(20) ? 20000.0 : 10.0);
        if (draw(3))
            bc_path_sent(path, now, (uint16_t)(draw(9) ? path->next : draw(0x10000)), draw(200), draw(250000));
        report(path, now, draw(4), leaps);
        check(path, now);
        check(path, now + draw(10));
    }
    if (!leaps && path->has_ticks) {
        uint32_t before = path->measured;
        behaved++;
        behave(path, now + 1, 12);
        check(path, now + 13);
        REQUIRE(path->measured >= before + 360 && path->delay < 0.01 && !path->over && !path->lossy);
        REQUIRE(path->throughput > 1.0e6 && path->throughput < 1.3e6 && path->estimate > 1.0e6);
        REQUIRE(bc_path_loss(path, now + 13) == 0.0 && path->rtt < 0.1);
    }
    free(path);
}

/* Settings and times of any kind: nothing is promised but to stay inside. */
static void try_mad_settings(void) {
    static const double times[] = {0.0, -0.0, -1.0, 1e-300, 1e9, -1e18, 1e300, NAN, INFINITY, -INFINITY};
    static const uint32_t sizes[] = {0, 1, 2, 3, 15, 16, 17, 127, 128, 129, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF};
    bc_path_settings settings = sound;
    for (double *one = &settings.gap; one <= &settings.overuse; one++)
        if (draw(6) == 0)
            *one = times[draw(sizeof times / sizeof *times)];
    for (uint32_t *one = &settings.runs; one <= &settings.full; one++)
        if (draw(2))
            *one = sizes[draw(sizeof sizes / sizeof *sizes)];
    bc_path *path = open_path(&settings);
    double now = 5.0;
    for (uint32_t step = 0; step < 60; step++) {
        now = draw(10) ? now + draw(1000) / 1000.0 : times[draw(sizeof times / sizeof *times)];
        bc_path_sent(path, now, (uint16_t)draw(0x10000), draw(200), draw(2) ? draw(250000) : UINT32_MAX);
        bc_path_sent(path, now, (uint16_t)path->next, draw(3) ? draw(200) : UINT32_MAX, draw(250000));
        report(path, now, draw(4), 1);
        bc_path_capacity(path, now);
        bc_path_loss(path, now);
        bc_path_excess(path, now);
    }
    free(path);
}

int main(int count, char **arguments) {
    REQUIRE(count == 3);
    int rounds = atoi(arguments[1]);
    noise = strtoull(arguments[2], NULL, 10) * 2 + 1;
    for (int number = 0; number < rounds; number++) {
        try_sound_settings();
        try_mad_settings();
    }
    REQUIRE(rounds < 100 || behaved > 0);
    return 0;
}
