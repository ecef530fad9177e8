/* The path estimator, operation by operation as in broadcaster/adaptation/ (estimator.py, losses.py, slots.py and
   trendline.py), where all is explained: a property test holds both to the same bits, so nothing may be reordered here.
   Compiled without contracted floating-point operations.

   Feedback is hostile: numbers, times and counts may be anything, and the work for each packet is bounded by the sizes
   of the arrays. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "feedback.h"
#include "estimate.h"

enum {
    RUNS = sizeof((bc_path *)0)->runs / sizeof(bc_run),
    SLOTS = sizeof((bc_slots *)0)->sums / sizeof(double),
    POINTS = sizeof((bc_path *)0)->points / sizeof(double) / 2,
    BURSTS = sizeof((bc_path *)0)->bursts / sizeof(double) / 2,
    DELAYS = sizeof((bc_path *)0)->recent / sizeof(double) / 2,
    STRETCHES = sizeof((bc_path *)0)->stretches / sizeof(bc_stretch),
    START = 0x10000             /* extended numbers stay above what is subtracted from them */
};

static const double TICK = 250e-6;
static const int64_t FARTHEST = (int64_t)1 << 48;   /* ticks: estimator.FARTHEST */
static const int64_t FAR = (int64_t)1 << 52;    /* slots beyond this are no times */

static double least(double a, double b) { return b < a ? b : a; }
static double most(double a, double b) { return b > a ? b : a; }

/* How many places of an array are in use: one at least, whatever the settings say, and no more than there are. */
static uint32_t places(uint32_t wanted, uint32_t limit) { return wanted < 1 ? 1 : wanted < limit ? wanted : limit; }

void bc_path_open(bc_path *path, const bc_path_settings *settings) {
    memset(path, 0, sizeof *path);
    path->settings = settings;
    path->delay = path->throughput = path->estimate = path->rtt = path->waiting_since = path->feedback_at = NAN;
    path->cut_at = path->loss_cut_at = path->floor_since = -INFINITY;
    path->floor_previous = path->floor_current = INFINITY;
    path->trendline_threshold = settings->threshold;
    path->arrived.newest = path->left.newest = path->received.newest = path->lost.newest = -1;
    path->arrived.since = path->left.since = path->received.since = path->lost.since = -1;
}

/* --- slots ------------------------------------------------------------------------------------------------------ */

static int64_t slot_of(double at, double length) {
    double slot = floor(at / length);
    return !(slot > 0.0) ? 0 : slot > (double)FAR ? FAR : (int64_t)slot;
}

/* `size` is how many of the sums are in use. */
static void slots_add(bc_slots *slots, uint32_t size, double length, double at, double amount) {
    int64_t slot = slot_of(at, length), count = size;
    if (slots->newest < 0)
        slots->newest = slots->since = slot;
    if (slot > slots->newest) {
        int64_t passed = slots->newest + 1 > slot - count + 1 ? slots->newest + 1 : slot - count + 1;
        for (; passed <= slot; passed++)
            slots->sums[passed % count] = 0.0;
        slots->newest = slot;
    }
    if (slot > slots->newest - count)
        slots->sums[slot % count] += amount;
}

static double slots_between(const bc_slots *slots, uint32_t size, int64_t first, int64_t last) {
    double total = 0.0;
    for (int64_t one = first < 0 ? 0 : first; one <= last; one++)
        total += slots->sums[one % size];
    return total;
}

/* NaN before two slots. */
static double slots_rate(const bc_slots *slots, uint32_t size, double length, double at, uint32_t count) {
    int64_t slot = slot_of(at, length), spans = count;
    if (slots->newest < 0 || slot - slots->since < 2)
        return NAN;
    if (spans > (int64_t)size - 1)
        spans = (int64_t)size - 1;
    if (spans > slot - slots->since)
        spans = slot - slots->since;
    int64_t oldest = slots->newest - size;
    int64_t first = slot - spans > oldest + 1 ? slot - spans : oldest + 1;
    int64_t last = slot < slots->newest ? slot : slots->newest;
    double total = slots_between(slots, size, first, last);
    return total / ((double)spans * length + (at - (double)slot * length));
}

static double slots_sum(const bc_slots *slots, uint32_t size, double length, double at) {
    int64_t slot = slot_of(at, length), newest = slots->newest;
    int64_t first = (slot > newest ? slot : newest) - size + 1, last = slot < newest ? slot : newest;
    return slots_between(slots, size, first, last);
}

static uint32_t rate_slots(const bc_path_settings *settings) {
    uint32_t longest = settings->window > settings->short_window ? settings->window : settings->short_window;
    return places(longest, SLOTS - 1) + 1;
}

static uint32_t loss_slots(const bc_path_settings *settings) { return places(settings->loss_slots, SLOTS - 1) + 1; }

/* --- the trend -------------------------------------------------------------------------------------------------- */

static double slope_of(const double *points, uint32_t count) {
    if (count < 2)
        return 0.0;
    double origin = points[0], sum_x = 0.0, sum_y = 0.0;
    for (uint32_t number = 0; number < count; number++) {
        sum_x += points[2 * number] - origin;
        sum_y += points[2 * number + 1];
    }
    double mean_x = sum_x / count, mean_y = sum_y / count, numerator = 0.0, denominator = 0.0;
    for (uint32_t number = 0; number < count; number++) {
        double distance = points[2 * number] - origin - mean_x;
        numerator += distance * (points[2 * number + 1] - mean_y);
        denominator += distance * distance;
    }
    return denominator > 0.0 ? numerator / denominator : 0.0;
}

static void drop_points(bc_path *path, uint32_t count) {
    path->points_kept -= count;
    memmove(path->points, path->points + (size_t)2 * count, (size_t)2 * path->points_kept * sizeof(double));
}

static void detect(bc_path *path, double trend, double step) {
    if (trend > path->trendline_threshold) {
        path->over_for = path->overs ? path->over_for + step : step / 2.0;
        path->overs++;
        if (path->over_for > path->settings->overuse && path->overs > 1 && trend >= path->trend) {
            path->over_for = 0.0;
            path->overs = 0;
            path->usage = 1;
        }
    } else {
        path->over_for = 0.0;
        path->overs = 0;
        path->usage = trend < -path->trendline_threshold ? -1 : 0;
    }
    path->trend = trend;
}

static void adapt(bc_path *path, double trend, double step) {
    const bc_path_settings *settings = path->settings;
    double size = fabs(trend), threshold = path->trendline_threshold;
    if (size > threshold + settings->outlier)
        return;
    double gain = size < threshold ? settings->down : settings->up;
    double moved = threshold + gain * (size - threshold) * 1000.0 * least(step, settings->longest_step);
    path->trendline_threshold = least(settings->highest, most(settings->lowest, moved));
}

static void follow_rise(bc_path *path, double arrival, double delay) {
    const bc_path_settings *settings = path->settings;
    double rise = path->rise_top - path->rise_from;
    int ends = delay <= path->rise_top - settings->dip * rise || arrival - path->rise_at > settings->stall;
    if (!path->measured || ends || arrival <= path->rise_since) {
        path->rises = 0;
        path->rise_from = path->rise_top = delay;
        path->rise_since = path->rise_at = arrival;
        path->rise_octets = path->rise_most = 0.0;
    } else if (delay > path->rise_top) {
        path->rises += delay > path->rise_top + settings->step;
        path->rise_most = most(path->rise_most, delay - path->rise_top);
        path->rise_top = delay;
        path->rise_at = arrival;
        path->rise_rate = 8.0 * path->rise_octets / (arrival - path->rise_since);
    }
    rise = path->rise_top - path->rise_from;
    int steady = path->rises >= settings->rises && path->rise_most <= settings->leap * rise;
    path->sinking = steady && rise >= settings->rise;
}

static void take_delay(bc_path *path, double arrival, double sent, double now) {
    const bc_path_settings *settings = path->settings;
    double delay = arrival - sent, before = path->delay;
    if (now - path->floor_since >= settings->floor) {
        path->floor_since = now;
        path->floor_previous = path->floor_current;
        path->floor_current = INFINITY;
    }
    path->floor_current = least(path->floor_current, delay);
    double lowest = least(path->floor_previous, path->floor_current);
    uint32_t room = places(settings->delays, DELAYS), gone = 0;
    if (path->delays_kept >= room) {
        path->delays_kept = room - 1;
        memmove(path->recent, path->recent + 2, (size_t)2 * path->delays_kept * sizeof(double));
    }
    path->recent[2 * path->delays_kept] = arrival;
    path->recent[2 * path->delays_kept + 1] = delay;
    path->delays_kept++;
    while (path->delays_kept - gone > 2 && arrival - path->recent[2 * gone] > settings->stall)
        gone++;
    path->delays_kept -= gone;
    memmove(path->recent, path->recent + (size_t)2 * gone, (size_t)2 * path->delays_kept * sizeof(double));
    double shortest = delay;
    for (uint32_t number = 0; number < path->delays_kept; number++)
        shortest = least(shortest, path->recent[2 * number + 1]);
    if (isfinite(lowest) && delay - lowest > settings->alarming)
        shortest = delay;
    path->delay = isfinite(lowest) ? most(0.0, shortest - lowest) : 0.0;
    path->falls = !isnan(before) && path->delay < before;

    if (path->delays == 0)
        path->smoothed = delay;
    path->delays++;
    path->smoothed = settings->smoothing * path->smoothed + (1.0 - settings->smoothing) * delay;
    double step = path->points_kept ? arrival - path->points[2 * (path->points_kept - 1)] : 0.0;
    room = places(settings->points, POINTS);
    if (path->points_kept >= room)
        drop_points(path, path->points_kept - room + 1);
    path->points[2 * path->points_kept] = arrival;
    path->points[2 * path->points_kept + 1] = path->smoothed;
    path->points_kept++;
    uint32_t old = 0;
    while (old + 1 < path->points_kept && arrival - path->points[2 * old] > settings->span)
        old++;
    drop_points(path, old);
    double full = path->delays < settings->full ? (double)path->delays : (double)settings->full;
    double trend = slope_of(path->points, path->points_kept) * full * settings->gain;
    detect(path, trend, step);
    adapt(path, trend, step);
    follow_rise(path, arrival, delay);
}

/* --- from packets to groups ------------------------------------------------------------------------------------- */

static uint32_t runs_of(const bc_path *path) { return places(path->settings->runs, RUNS); }

void bc_path_sent(bc_path *path, double now, uint16_t sequence, uint32_t packets, uint32_t octets) {
    if (packets == 0)
        return;
    uint64_t first = START + (uint64_t)sequence;
    if (path->next) {
        first = path->next + (((uint64_t)sequence - path->next + 0x8000) & 0xFFFF) - 0x8000;
        if (first < path->next)
            return;
    }
    path->next = first + packets;
    path->runs[path->runs_added++ % runs_of(path)] = (bc_run){first, now, packets, octets};
    if (isnan(path->waiting_since))
        path->waiting_since = now;
}

static int holds(const bc_run *run, uint64_t number) {
    return run->first <= number && number < run->first + run->packets;
}

/* The run that holds packet `number`, at `*place` in the order in which runs were added; NULL: it is forgotten. */
static const bc_run *find(const bc_path *path, uint64_t number, uint64_t *place) {
    uint64_t runs = runs_of(path), low = path->runs_added > runs ? path->runs_added - runs : 0, high = path->runs_added;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (path->runs[middle % runs].first <= number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    *place = low - 1;
    const bc_run *run = &path->runs[*place % runs];
    return holds(run, number) ? run : NULL;
}

static double time_of(bc_path *path, uint32_t ticks) {
    if (!path->has_ticks) {
        path->ticks = ticks;
        path->has_ticks = 1;
    } else {
        path->ticks += (int64_t)(((uint64_t)ticks - (uint64_t)path->ticks + 0x80000000u) & 0xFFFFFFFFu) - 0x80000000;
        path->ticks = path->ticks > FARTHEST ? FARTHEST : path->ticks < -FARTHEST ? -FARTHEST : path->ticks;
    }
    return (double)path->ticks * TICK;
}

static void close_group(bc_path *path, double now) {
    const bc_path_settings *settings = path->settings;
    if (path->group_arrived < settings->burst || path->group_lost)
        return;
    double spread = most(path->group_last - path->group_first, TICK);
    uint32_t room = places(settings->bursts, BURSTS);
    if (path->bursts_kept >= room) {
        path->bursts_kept = room - 1;
        memmove(path->bursts, path->bursts + 2, (size_t)2 * path->bursts_kept * sizeof(double));
    }
    path->bursts[2 * path->bursts_kept] = now;
    path->bursts[2 * path->bursts_kept + 1] = 8.0 * path->group_octets / spread;
    path->bursts_kept++;
}

static void take(bc_path *path, double at, double octets, double arrival, double now) {
    const bc_path_settings *settings = path->settings;
    if (!path->has_group || at - path->group_sent > settings->gap || at - path->group_began > settings->longest) {
        if (path->has_group)
            close_group(path, now);
        path->has_group = 1;
        path->group_began = at;
        path->group_first = path->group_last = arrival;
        path->group_arrived = path->group_lost = 0;
        path->group_octets = 0.0;
        take_delay(path, arrival, at, now);
    } else {
        path->group_octets += octets;
    }
    path->group_sent = at;
    path->group_last = most(path->group_last, arrival);
    path->group_arrived++;
}

/* --- from groups to the estimate -------------------------------------------------------------------------------- */

static void compare(bc_path *path, double now) {
    const bc_path_settings *settings = path->settings;
    uint32_t slow = 0, fast = 0;
    double rates[STRETCHES];
    if (path->stretches_kept < 2)
        return;
    for (uint32_t number = 0; number < path->stretches_kept; number++) {
        double end = number + 1 < path->stretches_kept ? path->stretches[number + 1].since : now;
        rates[number] = path->stretches[number].octets / (end - path->stretches[number].since);
        if (rates[number] < rates[slow])
            slow = number;
        if (rates[number] > rates[fast])
            fast = number;
    }
    const bc_stretch *slowest = &path->stretches[slow], *fastest = &path->stretches[fast];
    double slower = slowest->packets ? (double)slowest->lost / slowest->packets : 0.0;
    double faster = fastest->packets ? (double)fastest->lost / fastest->packets : 0.0;
    if (rates[slow] > settings->alike * rates[fast]) {
        if (slower < path->usual_loss)
            path->usual_loss += settings->forget * (slower - path->usual_loss);
    } else if (slower >= settings->inherent * faster && 1.0 - slower <= settings->scales * (1.0 - faster)) {
        path->usual_loss = least(slower, faster);
    } else {
        path->usual_loss = least(path->usual_loss, slower);
    }
}

static void judge_loss(bc_path *path, double now, double octets, uint32_t lost, uint32_t received) {
    const bc_path_settings *settings = path->settings;
    uint32_t room = places(settings->stretches, STRETCHES), kept = path->stretches_kept;
    if (!kept || now - path->stretches[kept - 1].since >= settings->judge) {
        compare(path, now);
        if (kept >= room) {
            kept = room - 1;
            memmove(path->stretches, path->stretches + 1, kept * sizeof(bc_stretch));
        }
        path->stretches[kept++] = (bc_stretch){now, 0.0, 0, 0};
        path->stretches_kept = kept;
    }
    bc_stretch *stretch = &path->stretches[kept - 1];
    stretch->octets += octets;
    stretch->lost += lost;
    stretch->packets += lost + received;
}

static void cut(bc_path *path, double now, double estimate) {
    if (now - path->cut_at < path->settings->hold)
        return;
    if (isnan(path->estimate) || estimate < path->estimate) {
        path->estimate = estimate;
        path->cut_at = now;
    }
}

static void estimate_anew(bc_path *path, double now) {
    const bc_path_settings *settings = path->settings;
    uint32_t size = rate_slots(settings);
    path->throughput = slots_rate(&path->arrived, size, settings->slot, path->last_arrival, settings->window) * 8.0;
    double delay = isnan(path->delay) ? 0.0 : path->delay;
    int stands = path->usage != -1 && delay > settings->standing && !path->falls;
    path->over = stands || path->sinking || (path->usage == 1 && delay > settings->guard);
    int excess = bc_path_excess(path, now) > settings->severe;
    double throughput = path->throughput;
    if (isnan(throughput))
        return;
    if (path->over) {
        double brief = slots_rate(&path->arrived, size, settings->slot, path->last_arrival, settings->short_window);
        double width = least(throughput, isnan(brief) ? throughput : 8.0 * brief);
        cut(path, now, settings->back_off * (path->sinking ? least(width, path->rise_rate) : width));
    } else if (excess) {
        double left = slots_rate(&path->left, size, settings->slot, path->last_sent, settings->window);
        left = isnan(left) ? 0.0 : left;
        int more = left * settings->alike > path->loss_cut_rate && now - path->loss_cut_at >= settings->hold;
        if (more || now - path->loss_cut_at >= settings->judge) {
            path->loss_cut_at = now;
            path->loss_cut_rate = left;
            cut(path, now, throughput);
        }
    } else if (path->usage == 0 && delay < 2.0 * settings->guard) {
        double left = slots_rate(&path->left, size, settings->slot, path->last_sent, settings->window);
        double shown = isnan(left) ? throughput : least(throughput, 8.0 * left);
        path->estimate = isnan(path->estimate) ? shown : most(path->estimate, shown);
    }
    path->lossy = excess && now - path->loss_cut_at <= settings->shows;
}

void bc_path_arrived(bc_path *path, double now, const bc_arrival *arrivals, uint32_t count) {
    const bc_path_settings *settings = path->settings;
    uint32_t received = 0, lost = 0, size = rate_slots(settings), runs = runs_of(path);
    double octets = 0.0, newest_sent = NAN;
    const bc_run *run = NULL;
    uint64_t place = 0;
    if (!path->next)
        return;
    for (uint32_t index = 0; index < count; index++) {
        uint64_t number = path->next - ((path->next - arrivals[index].sequence) & 0xFFFF);
        if (run == NULL || !holds(run, number)) {
            if (run != NULL && place + 1 < path->runs_added && holds(&path->runs[(place + 1) % runs], number))
                run = &path->runs[++place % runs];
            else
                run = find(path, number, &place);
            if (run == NULL)
                continue;
        }
        if (!arrivals[index].received) {
            if (number > path->heard) {
                lost++;
                if (path->has_group)
                    path->group_lost++;
            }
            continue;
        }
        double weight = (double)run->octets / run->packets, arrival = time_of(path, arrivals[index].ticks);
        received++;
        octets += weight;
        path->rise_octets += weight;
        slots_add(&path->arrived, size, settings->slot, arrival, weight);
        slots_add(&path->left, size, settings->slot, run->at, weight);
        path->last_arrival = most(path->last_arrival, arrival);
        path->last_sent = most(path->last_sent, run->at);
        newest_sent = isnan(newest_sent) ? run->at : most(newest_sent, run->at);
        if (number > path->heard) {
            take(path, run->at, weight, arrival, now);
            path->heard = number;
        }
    }
    if (!received && !lost)
        return;
    if (!isnan(path->feedback_at) && now - path->feedback_at > settings->dark) {
        lost = 0;
        path->stretches_kept = 0;
        path->loss_cut_at = now;
    }
    path->feedback_at = now;
    path->measured++;
    path->waiting_since = path->heard + 1 < path->next ? now : NAN;
    slots_add(&path->received, loss_slots(settings), settings->loss_slot, now, received);
    slots_add(&path->lost, loss_slots(settings), settings->loss_slot, now, lost);
    judge_loss(path, now, octets, lost, received);
    if (!isnan(newest_sent))
        path->rtt = now - newest_sent;
    estimate_anew(path, now);
    if (path->watched || path->over || path->lossy)
        path->told = 1;
}

/* --- for whoever asks ------------------------------------------------------------------------------------------- */

double bc_path_capacity(const bc_path *path, double now) {
    double recent[BURSTS];
    uint32_t count = 0;
    for (uint32_t number = 0; number < path->bursts_kept; number++) {
        if (!(now - path->bursts[2 * number] <= path->settings->burst_age))
            continue;
        uint32_t at = count++;
        for (; at > 0 && recent[at - 1] > path->bursts[2 * number + 1]; at--)
            recent[at] = recent[at - 1];
        recent[at] = path->bursts[2 * number + 1];
    }
    return count ? recent[count / 2] : NAN;
}

double bc_path_loss(const bc_path *path, double now) {
    const bc_path_settings *settings = path->settings;
    double lost = slots_sum(&path->lost, loss_slots(settings), settings->loss_slot, now);
    double received = slots_sum(&path->received, loss_slots(settings), settings->loss_slot, now);
    return lost + received > 0 ? lost / (lost + received) : NAN;
}

double bc_path_excess(const bc_path *path, double now) {
    const bc_path_settings *settings = path->settings;
    double lost = slots_sum(&path->lost, loss_slots(settings), settings->loss_slot, now);
    double received = slots_sum(&path->received, loss_slots(settings), settings->loss_slot, now);
    double count = lost + received;
    if (!(count > 0.0))
        return 0.0;
    double loss = lost / count;
    return most(0.0, loss - path->usual_loss - 2.0 * sqrt(loss * (1.0 - loss) / count));
}
