/* Transport-wide feedback of all viewers of a run. Also read by cffi, which knows neither conditions nor includes. */

/* Who tells a server what came to one viewer. */
typedef struct {
    int64_t following;      /* the extended transport-wide number after the last that was told of; -1: none was */
    void *srtp;             /* libsrtp's srtp_t; NULL: nothing is told */
    uint32_t ssrc;          /* of the media */
    int32_t socket;
    uint32_t count;         /* of feedback packets, modulo 256 */
} bc_teller;

/* Write the feedback on `count` packets, of which `numbers` have the lower 16 bits and `ticks` the time, in units of
   250 microseconds: 1 at least. Returns its octets, at most `room`. Returns 0, and changes nothing, where it does not
   fit, and where one came after a higher number, or twice. */
uint32_t bc_feedback(bc_teller *teller, const int64_t *numbers, const int64_t *ticks, uint32_t count, uint8_t *packet,
                     uint32_t room);

/* Tell of many viewers: the packets from starts[n] to starts[n + 1] came to viewer who[n]; what came to one viewer stands
   together, and may be told in parts. `protect` is libsrtp 2's srtp_protect_rtcp. Left out are those of which left[n] is
   not 0; it is set for those that bc_feedback does not do, and for the same viewer's behind them. */
void bc_tell(void *protect, bc_teller *tellers, const int64_t *who, const int64_t *starts, uint32_t groups,
             const int64_t *numbers, const int64_t *ticks, uint8_t *left);
