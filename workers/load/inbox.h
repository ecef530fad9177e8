/* The sockets of all viewers of a run, emptied in one call. Also read by cffi, which knows neither conditions nor
   includes. */

/* A viewer's socket, and what is wanted of what arrives there. */
typedef struct {
    int32_t socket;         /* -1: it is not read */
    uint32_t transport;     /* id of the extension with transport-wide numbers (RFC 8285), 1 to 14; 0: none */
    uint32_t media;         /* the SSRC of which `kept` more packets are kept */
    uint32_t resent;        /* an SSRC of which every packet is kept; 0: none */
    uint64_t kept;
} bc_line;

/* What arrived, a row for each datagram that is not empty, with room for `room` in every column. */
typedef struct {
    int64_t *viewer;        /* which of the lines */
    int64_t *size;          /* octets */
    int64_t *sequence;      /* of RTP, as the two below; else 0 */
    int64_t *timestamp;
    int64_t *ssrc;
    int64_t *number;        /* the transport-wide number; -1: none */
    int64_t *place;         /* where in `memory` the datagram is kept; -1: it is not */
    double *arrival;        /* seconds */
    uint8_t *rtp;           /* whether it is RTP (RFC 5761); what is not is kept always */
    uint8_t *marker;
    uint8_t *memory;
    uint32_t space;         /* octets of `memory` */
    uint32_t used;
    uint32_t room;
    uint32_t rows;
} bc_rows;

typedef struct bc_reader bc_reader;

/* `joined`: what the kernel left together (UDP_GRO) has room. NULL without memory. */
bc_reader *bc_reader_open(int joined);
void bc_reader_close(bc_reader *reader);

/* Octets of memory, and rows, that there must be for one call to get on. */
uint32_t bc_least_space(const bc_reader *reader);
uint32_t bc_least_rows(void);

/* Take what waits in the lines from `from` on, until all `count` are empty or the rows are full. A line is left as well
   when something came that arrived after `until`: a server that never stops must not keep the others waiting. The
   kernel's clock runs `ahead` seconds before the one that arrivals are told by, on which it is `now`: when those arrived
   of which the kernel does not say it. Returns where to go on: `count` when all lines were read. */
uint32_t bc_read(bc_reader *reader, bc_line *lines, uint32_t count, uint32_t from, double now, double until,
                 double ahead, bc_rows *rows);
