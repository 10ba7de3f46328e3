/* What the programs of the bench share: the time, a netlink socket, the attributes of a message. */

#ifndef BENCH_NETLINK_H
#define BENCH_NETLINK_H

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* groups: a mask of RTMGRP_*. */
static inline int open_rtnetlink(uint32_t groups, int receive_buffer) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) err(1, "socket");
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) < 0) err(1, "SO_RCVBUFFORCE");
  struct sockaddr_nl local = { .nl_family = AF_NETLINK, .nl_groups = groups };
  if (bind(fd, (struct sockaddr *)&local, sizeof local) < 0) err(1, "bind");
  return fd;
}

/* The value of an attribute with that size; NULL when there is none. */
static inline const uint8_t *find(const struct nlmsghdr *header, size_t body, uint16_t type, size_t size) {
  const struct rtattr *attribute = (const struct rtattr *)((const uint8_t *)NLMSG_DATA(header) + NLMSG_ALIGN(body));
  long left = (long)header->nlmsg_len - (long)NLMSG_LENGTH(NLMSG_ALIGN(body));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type == type && RTA_PAYLOAD(attribute) == size) return RTA_DATA(attribute);
  }
  return NULL;
}

#endif
