/* tdl_peer: a socket for somebody in this process who can connect to a path and
** do nothing else: the loops of hosts whose sockets are their own.
** Threads: one.
** Owns:    the listening socket, and its path in a folder of its own, which
**          nobody else may enter.
** Fails:   with TREADLE_ESYSTEM. */
#ifndef TDL_RUN_PEER_H
#define TDL_RUN_PEER_H

typedef struct tdl_peer {
  int fd;        /* -1: closed */
  char path[96]; /* within what an address takes */
} tdl_peer;

/* Makes a folder in `parent`, and listens there. */
int tdl_peer_open(tdl_peer *peer, const char *parent);

/* The other end of a connection that has been made, never blocking: what this
** very process has connected, others are turned away. It is the caller's. */
int tdl_peer_accept(tdl_peer *peer, int *socket);

/* Also of one that is closed. */
void tdl_peer_close(tdl_peer *peer);

#endif
