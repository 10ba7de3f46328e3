/*
 * Tells when a network has arrived in the kernel: whoever programs it, and however.
 *
 *   arrivals N route|fdb
 *
 * Runs in the network namespace of a host. Says `ready`; then waits for notifications of N different subnets 10.x.y.0/24
 * (route), or of FDB entries for N different MACs 02:42:00:.. (fdb), and prints the time of the last one: nanoseconds of
 * CLOCK_MONOTONIC.
 */

#include <linux/neighbour.h>

#include "netlink.h"

/* A notification takes about 1 KiB of it. */
#define RECEIVE_BUFFER (256 * 1024 * 1024)

/* Not a blocking receive, which would be woken for every notification, at the cost of who makes them. */
static const struct timespec PAUSE = { .tv_nsec = 500000 };

static uint8_t seen[1 << 24];

/* The number of the peer that it is about; 0 for anything else. */
static uint32_t peer_of(const struct nlmsghdr *header) {
  if (header->nlmsg_type == RTM_NEWROUTE) {
    const struct rtmsg *route = NLMSG_DATA(header);
    const uint8_t *destination = find(header, sizeof *route, RTA_DST, 4);
    if (route->rtm_table != RT_TABLE_MAIN || route->rtm_dst_len != 24 || destination == NULL) return 0;
    return destination[0] == 10 ? (uint32_t)(destination[1] << 8 | destination[2]) : 0;
  }
  if (header->nlmsg_type == RTM_NEWNEIGH) {
    const struct ndmsg *neighbour = NLMSG_DATA(header);
    const uint8_t *mac = find(header, sizeof *neighbour, NDA_LLADDR, 6);
    if (neighbour->ndm_family != AF_BRIDGE || mac == NULL) return 0;
    return mac[0] == 2 && mac[1] == 0x42 && mac[2] == 0 ? (uint32_t)(mac[3] << 16 | mac[4] << 8 | mac[5]) : 0;
  }
  return 0;
}

int main(int argc, char **argv) {
  uint32_t wanted = argc == 3 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
  bool route = argc == 3 && strcmp(argv[2], "route") == 0;
  if (wanted == 0 || !(route || strcmp(argv[2], "fdb") == 0)) errx(2, "usage: arrivals N route|fdb");
  int fd = open_rtnetlink(route ? RTMGRP_IPV4_ROUTE : RTMGRP_NEIGH, RECEIVE_BUFFER);
  printf("ready\n");
  fflush(stdout);

  static uint8_t buffer[64 * 1024];
  for (uint32_t count = 0; count < wanted;) {
    ssize_t length = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (length < 0 && errno == EAGAIN) {
      nanosleep(&PAUSE, NULL);
      continue;
    }
    if (length < 0) err(1, "recv");
    for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length)) {
      uint32_t peer = peer_of(header);
      if (peer == 0 || seen[peer]) continue;
      seen[peer] = 1;
      count++;
    }
  }
  printf("%llu\n", (unsigned long long)now_ns());
  return 0;
}
