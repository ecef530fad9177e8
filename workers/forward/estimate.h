/* What a path carries: the twin of estimator.py, losses.py, slots.py and trendline.py in broadcaster/adaptation/, which
   explain every name. Also read by cffi, which knows neither conditions nor includes. Needs bc_arrival of feedback.h. */

/* EstimatorSettings, LossSettings and TrendlineSettings: `short_window` is `short`, `points` the trendline's window. */
typedef struct {
    double gap, longest, slot, loss_slot, floor, dark, stall, alarming, guard, standing, back_off, hold;
    double rise, leap, dip, step;
    double severe, shows, inherent, scales, alike, judge, forget, burst_age;
    double span, smoothing, gain, threshold, lowest, highest, up, down, longest_step, outlier, overuse;
    uint32_t runs, window, short_window, loss_slots, burst, bursts, stretches, points, delays, full, rises;
} bc_path_settings;

typedef struct {
    uint64_t first;         /* extended transport-wide number */
    double at;              /* monotonic seconds */
    uint32_t packets;
    uint32_t octets;        /* on the wire, of all */
} bc_run;

typedef struct {
    int64_t newest, since;
    double sums[16];
} bc_slots;

typedef struct {
    double since, octets;
    uint32_t lost, packets;
} bc_stretch;

/* The state of one viewer's estimator. Unknown times and rates are NaN. */
struct bc_path {
    const bc_path_settings *settings;
    uint64_t runs_added;    /* a ring: the newest run is number runs_added - 1 */
    uint64_t next;          /* extended number behind the last one sent; counts from 2^16 on, so that 0 is none */
    uint64_t heard;         /* the highest number that feedback spoke of */
    int64_t ticks;          /* unwrapped */
    double last_arrival, last_sent, waiting_since, feedback_at;
    double group_began, group_sent, group_first, group_last, group_octets;
    uint32_t group_arrived, group_lost;
    double floor_since, floor_previous, floor_current;
    double delay, throughput, estimate, rtt;
    double cut_at, loss_cut_at, loss_cut_rate, usual_loss;
    double smoothed, trendline_threshold, trend, over_for;
    double rise_from, rise_top, rise_since, rise_at, rise_most, rise_octets, rise_rate;
    uint64_t delays;
    uint32_t overs, points_kept, bursts_kept, stretches_kept, delays_kept, rises;
    uint32_t measured;
    int8_t usage;           /* 1: over, -1: under */
    uint8_t has_group, has_ticks, falls, over, lossy, sinking;
    uint8_t watched;        /* set by Python: it wants to hear of every feedback */
    uint8_t told;           /* whether Python should look at this now; reset by Python */
    double recent[32];      /* time and delay of each, the oldest first */
    double points[64];      /* time and delay of each, the oldest first */
    double bursts[16];      /* time and rate of each, the oldest first */
    bc_stretch stretches[8];
    bc_slots arrived, left, received, lost;
    bc_run runs[128];
};

void bc_path_open(bc_path *path, const bc_path_settings *settings);
/* `packets` packets with consecutive numbers from `sequence` on left together, of so many octets in all. */
void bc_path_sent(bc_path *path, double now, uint16_t sequence, uint32_t packets, uint32_t octets);
void bc_path_arrived(bc_path *path, double now, const bc_arrival *arrivals, uint32_t count);
double bc_path_capacity(const bc_path *path, double now);
double bc_path_loss(const bc_path *path, double now);
double bc_path_excess(const bc_path *path, double now);
