#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../treadle.h"

#define FOLDER "/treadle-XXXXXX"
#define NAME   "/s"

static void remove_folder(char *path) {
  path[strlen(path) - strlen(NAME)] = '\0';
  rmdir(path);
}

int tdl_peer_open(tdl_peer *peer, const char *parent) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  _Static_assert(sizeof(at.sun_path) >= sizeof(peer->path), "fits");
  peer->fd = -1;
  if (strlen(parent) + sizeof(FOLDER NAME) > sizeof(peer->path)) {
    return TREADLE_ESYSTEM;
  }
  snprintf(peer->path, sizeof(peer->path), "%s" FOLDER, parent);
  if (mkdtemp(peer->path) == NULL) {
    return TREADLE_ESYSTEM;
  }
  strcat(peer->path, NAME);
  memcpy(at.sun_path, peer->path, sizeof(peer->path));
  peer->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (peer->fd < 0) {
    remove_folder(peer->path);
    return TREADLE_ESYSTEM;
  }
  if (bind(peer->fd, (struct sockaddr *)&at, sizeof(at)) != 0 ||
      listen(peer->fd, 1) != 0) {
    tdl_peer_close(peer);
    return TREADLE_ESYSTEM;
  }
  return 0;
}

static int is_ours(int fd) {
  struct ucred who;
  socklen_t size = sizeof(who);
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
         who.pid == getpid();
}

int tdl_peer_accept(tdl_peer *peer, int *socket) {
  int fd;
  while ((fd = accept4(peer->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >=
         0) {
    if (is_ours(fd)) {
      *socket = fd;
      return 0;
    }
    close(fd);
  }
  return TREADLE_ESYSTEM;
}

void tdl_peer_close(tdl_peer *peer) {
  if (peer->fd >= 0) {
    close(peer->fd);
    peer->fd = -1;
    unlink(peer->path);
    remove_folder(peer->path);
  }
}
