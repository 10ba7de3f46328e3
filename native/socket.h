/* Datagram sockets opened inside a network namespace. POSIX only: nothing here knows of JavaScript. */

#ifndef TWEED_SOCKET_H
#define TWEED_SOCKET_H

#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>

/* The most datagrams that one receive_batch takes. */
#define BATCH_MAX 64

/* The system call that failed, and its errno. */
struct failure {
  const char *syscall;
  int error;
};

/*
 * A bound netlink socket. netns: a path such as /run/netns/x, NULL for the caller's own namespace. protocol:
 * NETLINK_ROUTE or NETLINK_GENERIC. groups: multicast groups of the protocol, by number. receive_buffer: bytes, 0
 * for the system's default. Returns the descriptor, or -1.
 */
int open_netlink(const char *netns, int protocol, const uint32_t *groups, size_t group_count, int receive_buffer,
                 struct failure *failure);

/* A raw ICMP socket connected to the destination: what it receives begins with the IPv4 header. */
int open_icmp(const char *netns, struct in_addr destination, struct failure *failure);

/* A raw ICMPv6 socket connected to the destination: it receives without the IPv6 header, and the kernel sums. */
int open_icmp6(const char *netns, struct in6_addr destination, struct failure *failure);

/* A unix datagram socket connected to the path; a leading '@' stands for an abstract name (unix(7)). */
int open_unix(const char *path, struct failure *failure);

/*
 * Receives datagrams, one in each slot of slot_size bytes, and waits at most timeout milliseconds for the
 * first. Returns their number, 0 when none came, -1 on failure. lengths[i] is the true length of the datagram:
 * greater than slot_size means that it was cut off.
 */
int receive_batch(int fd, uint8_t *slots, size_t slot_size, uint32_t *lengths, size_t count, int timeout,
                  struct failure *failure);

#endif
