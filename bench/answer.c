/*
 * The floor of an L3 miss: answers all of them with one MAC, in as little code as there can be.
 *
 *   answer LINK MAC
 *
 * Runs in the network namespace of a host. Says `ready`; then gives every IPv4 address that the kernel looks for on the link a
 * permanent neighbour with the MAC, until it is ended.
 */

#include <linux/neighbour.h>
#include <net/if.h>
#include <stddef.h>

#include "netlink.h"

#define RECEIVE_BUFFER (1024 * 1024)

struct answer {
  struct nlmsghdr header;
  struct ndmsg neighbour;
  struct rtattr destination;
  uint8_t ip[4];
  struct rtattr address;
  uint8_t mac[8]; /* 6, and the padding. */
};

/* The address that is missed on the link; NULL for anything else. */
static const uint8_t *missed(const struct nlmsghdr *header, int link) {
  const struct ndmsg *neighbour = NLMSG_DATA(header);
  if (header->nlmsg_type != RTM_GETNEIGH || neighbour->ndm_family != AF_INET || neighbour->ndm_ifindex != link) return NULL;
  return find(header, sizeof *neighbour, NDA_DST, 4);
}

int main(int argc, char **argv) {
  int link = argc == 3 ? (int)if_nametoindex(argv[1]) : 0;
  unsigned mac[6];
  if (link == 0 || sscanf(argv[2], "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) {
    errx(2, "usage: answer LINK MAC");
  }
  struct answer answer = {
    .header = { .nlmsg_len = offsetof(struct answer, mac) + 6,
                .nlmsg_type = RTM_NEWNEIGH,
                .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE },
    .neighbour = { .ndm_family = AF_INET, .ndm_ifindex = link, .ndm_state = NUD_PERMANENT },
    .destination = { .rta_len = RTA_LENGTH(4), .rta_type = NDA_DST },
    .address = { .rta_len = RTA_LENGTH(6), .rta_type = NDA_LLADDR },
  };
  for (int i = 0; i < 6; i++) answer.mac[i] = (uint8_t)mac[i];
  int heard = open_rtnetlink(RTMGRP_NEIGH, RECEIVE_BUFFER), told = open_rtnetlink(0, RECEIVE_BUFFER);
  printf("ready\n");
  fflush(stdout);

  static uint8_t buffer[64 * 1024];
  for (;;) {
    ssize_t length = recv(heard, buffer, sizeof buffer, 0);
    if (length < 0) err(1, "recv");
    for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length)) {
      const uint8_t *ip = missed(header, link);
      if (ip == NULL) continue;
      memcpy(answer.ip, ip, sizeof answer.ip);
      if (send(told, &answer, answer.header.nlmsg_len, 0) < 0) err(1, "send");
    }
  }
}
