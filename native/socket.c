#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int fail(struct failure *failure, const char *syscall, int error) {
  *failure = (struct failure){ .syscall = syscall, .error = error };
  return -1;
}

static int close_and_fail(int fd, struct failure *failure, const char *syscall) {
  int error = errno;
  close(fd);
  return fail(failure, syscall, error);
}

struct opening {
  const char *netns;
  int domain, type, protocol;
  int fd;
  struct failure failure;
};

static int open_here(const struct opening *opening, struct failure *failure) {
  int fd = socket(opening->domain, opening->type | SOCK_CLOEXEC | SOCK_NONBLOCK, opening->protocol);
  return fd < 0 ? fail(failure, "socket", errno) : fd;
}

static int open_there(const struct opening *opening, struct failure *failure) {
  int netns = open(opening->netns, O_RDONLY | O_CLOEXEC);
  if (netns < 0) return fail(failure, "open", errno);
  if (setns(netns, CLONE_NEWNET) < 0) return close_and_fail(netns, failure, "setns");
  close(netns);
  return open_here(opening, failure);
}

static void *opening_thread(void *argument) {
  struct opening *opening = argument;
  opening->fd = open_there(opening, &opening->failure);
  return NULL;
}

/*
 * A namespace belongs to a thread, and a socket stays in the namespace in which it was made. So a thread that
 * lives only for this moves and makes the socket: no other thread of the process ever changes its namespace.
 */
static int open_socket(const char *netns, int domain, int type, int protocol, struct failure *failure) {
  struct opening opening = { .netns = netns, .domain = domain, .type = type, .protocol = protocol, .fd = -1 };
  if (netns == NULL) return open_here(&opening, failure);
  pthread_t thread;
  int error = pthread_create(&thread, NULL, opening_thread, &opening);
  if (error != 0) return fail(failure, "pthread_create", error);
  pthread_join(thread, NULL);
  *failure = opening.failure;
  return opening.fd;
}

static bool set_option(int fd, int option, int value) {
  return setsockopt(fd, SOL_NETLINK, option, &value, sizeof value) == 0;
}

static bool set_receive_buffer(int fd, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) == 0) return true;
  return errno == EPERM && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0;
}

static bool configure_netlink(int fd, const uint32_t *groups, size_t group_count, int receive_buffer) {
  if (!set_option(fd, NETLINK_EXT_ACK, 1) || !set_option(fd, NETLINK_CAP_ACK, 1)) return false;
  /* Linux 4.20; before it, the kernel ignores what it does not know in a dump request. */
  if (!set_option(fd, NETLINK_GET_STRICT_CHK, 1) && errno != ENOPROTOOPT) return false;
  if (receive_buffer > 0 && !set_receive_buffer(fd, receive_buffer)) return false;
  for (size_t i = 0; i < group_count; i++) {
    if (!set_option(fd, NETLINK_ADD_MEMBERSHIP, (int)groups[i])) return false;
  }
  return true;
}

int open_netlink(const char *netns, int protocol, const uint32_t *groups, size_t group_count, int receive_buffer,
                 struct failure *failure) {
  int fd = open_socket(netns, AF_NETLINK, SOCK_RAW, protocol, failure);
  if (fd < 0) return -1;
  struct sockaddr_nl local = { .nl_family = AF_NETLINK };
  if (bind(fd, (struct sockaddr *)&local, sizeof local) < 0) return close_and_fail(fd, failure, "bind");
  if (!configure_netlink(fd, groups, group_count, receive_buffer)) {
    return close_and_fail(fd, failure, "setsockopt");
  }
  return fd;
}

int open_icmp(const char *netns, struct in_addr destination, struct failure *failure) {
  int fd = open_socket(netns, AF_INET, SOCK_RAW, IPPROTO_ICMP, failure);
  if (fd < 0) return -1;
  struct sockaddr_in peer = { .sin_family = AF_INET, .sin_addr = destination };
  if (connect(fd, (struct sockaddr *)&peer, sizeof peer) < 0) return close_and_fail(fd, failure, "connect");
  return fd;
}

int open_icmp6(const char *netns, struct in6_addr destination, struct failure *failure) {
  int fd = open_socket(netns, AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, failure);
  if (fd < 0) return -1;
  struct sockaddr_in6 peer = { .sin6_family = AF_INET6, .sin6_addr = destination };
  if (connect(fd, (struct sockaddr *)&peer, sizeof peer) < 0) return close_and_fail(fd, failure, "connect");
  return fd;
}

int open_unix(const char *path, struct failure *failure) {
  struct sockaddr_un peer = { .sun_family = AF_UNIX };
  size_t length = strlen(path);
  if (length >= sizeof peer.sun_path) return fail(failure, "connect", ENAMETOOLONG);
  memcpy(peer.sun_path, path, length);
  if (path[0] == '@') peer.sun_path[0] = 0;
  int fd = open_socket(NULL, AF_UNIX, SOCK_DGRAM, 0, failure);
  if (fd < 0) return -1;
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  if (connect(fd, (struct sockaddr *)&peer, size) < 0) return close_and_fail(fd, failure, "connect");
  return fd;
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Returns 1 when the socket is readable or has an error to read, 0 at the deadline, -1 on failure. */
static int wait_readable(int fd, int64_t deadline) {
  struct pollfd pollfd = { .fd = fd, .events = POLLIN };
  for (;;) {
    int64_t left = deadline - now_ms();
    int ready = poll(&pollfd, 1, left > 0 ? (int)left : 0);
    if (ready >= 0 || errno != EINTR) return ready;
  }
}

int receive_batch(int fd, uint8_t *slots, size_t slot_size, uint32_t *lengths, size_t count, int timeout,
                  struct failure *failure) {
  struct iovec vectors[BATCH_MAX];
  struct mmsghdr messages[BATCH_MAX];
  if (count > BATCH_MAX) count = BATCH_MAX;
  memset(messages, 0, count * sizeof messages[0]);
  for (size_t i = 0; i < count; i++) {
    vectors[i] = (struct iovec){ .iov_base = slots + i * slot_size, .iov_len = slot_size };
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }

  int64_t deadline = now_ms() + timeout;
  for (;;) {
    /* MSG_TRUNC asks for the true length of a datagram that does not fit. */
    int received = recvmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT | MSG_TRUNC, NULL);
    if (received >= 0) {
      for (int i = 0; i < received; i++) lengths[i] = messages[i].msg_len;
      return received;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return fail(failure, "recvmmsg", errno);
    int ready = wait_readable(fd, deadline);
    if (ready < 0) return fail(failure, "poll", errno);
    if (ready == 0) return 0;
  }
}
