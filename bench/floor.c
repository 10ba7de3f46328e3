/*
 * The floor: what the kernel itself needs for a network of N remote subnets. The messages that an agent would send are
 * encoded beforehand and sent in datagrams of 200, with one acknowledgement each; nothing is decided and nothing is
 * read back.
 *
 *   floor N static|l3miss|gateway
 *
 * Runs in a fresh network namespace that has an eth0; makes flannel.1 there. Prints what each kind of operation took and
 * the sum, in microseconds. `gateway` is flannel's form: each route with its own gateway, no nexthop objects.
 */

#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <net/if.h>

#include "netlink.h"

#define BATCH 200
#define FIRST_NEXTHOP 1000
#define ANSWER_BUFFER (1024 * 1024)

static int fd;

/* ---- Messages ---- */

struct stream {
  uint8_t *bytes;
  size_t length, capacity;
  size_t *ends; /* Of each message. */
  size_t count, room;
};

static void *reserve(struct stream *stream, size_t size) {
  size_t padded = NLMSG_ALIGN(size);
  if (stream->length + padded > stream->capacity) {
    stream->capacity = 2 * (stream->capacity + padded);
    stream->bytes = realloc(stream->bytes, stream->capacity);
    if (stream->bytes == NULL) err(1, "realloc");
  }
  void *at = stream->bytes + stream->length;
  memset(at, 0, padded);
  stream->length += padded;
  return at;
}

static size_t begin(struct stream *stream, uint16_t type, uint16_t flags, const void *body, size_t size) {
  size_t start = stream->length;
  struct nlmsghdr *header = reserve(stream, sizeof *header);
  *header = (struct nlmsghdr){ .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags };
  memcpy(reserve(stream, size), body, size);
  return start;
}

static void put(struct stream *stream, uint16_t type, const void *value, size_t size) {
  struct rtattr *attribute = reserve(stream, RTA_LENGTH(size));
  attribute->rta_type = type;
  attribute->rta_len = (unsigned short)RTA_LENGTH(size);
  if (size > 0) memcpy(RTA_DATA(attribute), value, size);
}

static void put_u32(struct stream *stream, uint16_t type, uint32_t value) {
  put(stream, type, &value, sizeof value);
}

static void finish(struct stream *stream, size_t start) {
  struct nlmsghdr *header = (struct nlmsghdr *)(stream->bytes + start);
  header->nlmsg_len = (uint32_t)(stream->length - start);
  header->nlmsg_seq = (uint32_t)stream->count;
  if (stream->count == stream->room) {
    stream->room = 2 * stream->room + 1024;
    stream->ends = realloc(stream->ends, stream->room * sizeof *stream->ends);
    if (stream->ends == NULL) err(1, "realloc");
  }
  stream->ends[stream->count++] = stream->length;
}

/* ---- The network: peer i has 10.x.y.0/24, the VTEP 02:42:00:x:y:.., and the public IP 172.16.0.0 + i ---- */

static uint32_t subnet(uint32_t i) {
  return htonl((10u << 24) + (i << 8));
}

static uint32_t public_ip(uint32_t i) {
  return htonl((172u << 24) + (16u << 16) + i);
}

static void put_mac(struct stream *stream, uint16_t type, uint32_t i) {
  uint8_t mac[6] = { 2, 0x42, 0, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i };
  put(stream, type, mac, sizeof mac);
}

static void add_fdb(struct stream *stream, int link, uint32_t i) {
  struct ndmsg body = { .ndm_family = AF_BRIDGE, .ndm_ifindex = link, .ndm_state = NUD_PERMANENT, .ndm_flags = NTF_SELF };
  size_t start = begin(stream, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &body, sizeof body);
  put_u32(stream, NDA_DST, public_ip(i));
  put_mac(stream, NDA_LLADDR, i);
  finish(stream, start);
}

static void add_neighbour(struct stream *stream, int link, uint32_t i) {
  struct ndmsg body = { .ndm_family = AF_INET, .ndm_ifindex = link, .ndm_state = NUD_PERMANENT };
  size_t start = begin(stream, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &body, sizeof body);
  put_u32(stream, NDA_DST, subnet(i));
  put_mac(stream, NDA_LLADDR, i);
  finish(stream, start);
}

static void add_nexthop(struct stream *stream, int link, uint32_t i) {
  struct nhmsg body = { .nh_family = AF_INET, .nh_protocol = RTPROT_STATIC, .nh_flags = RTNH_F_ONLINK };
  size_t start = begin(stream, RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
  put_u32(stream, NHA_ID, FIRST_NEXTHOP + i);
  put_u32(stream, NHA_GATEWAY, subnet(i));
  put_u32(stream, NHA_OIF, (uint32_t)link);
  finish(stream, start);
}

static void add_route(struct stream *stream, int link, uint32_t i, bool gateway) {
  struct rtmsg body = { .rtm_family = AF_INET, .rtm_dst_len = 24, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
                        .rtm_type = RTN_UNICAST, .rtm_flags = gateway ? RTNH_F_ONLINK : 0 };
  size_t start = begin(stream, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
  put_u32(stream, RTA_DST, subnet(i));
  if (gateway) {
    put_u32(stream, RTA_GATEWAY, subnet(i));
    put_u32(stream, RTA_OIF, (uint32_t)link);
  } else {
    put_u32(stream, RTA_NH_ID, FIRST_NEXTHOP + i);
  }
  finish(stream, start);
}

/* ---- Sending ---- */

static void await_answer(uint32_t last) {
  static uint8_t answer[64 * 1024];
  for (;;) {
    ssize_t length = recv(fd, answer, sizeof answer, 0);
    if (length < 0) err(1, "recv");
    for (struct nlmsghdr *header = (struct nlmsghdr *)answer; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length)) {
      if (header->nlmsg_type != NLMSG_ERROR) continue;
      int error = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
      if (error != 0) errx(1, "message %u: %s", header->nlmsg_seq, strerror(error));
      if (header->nlmsg_seq == last) return;
    }
  }
}

static uint64_t send_all(const char *what, struct stream *stream) {
  uint64_t started = now_ns();
  size_t start = 0, last_start = 0;
  for (size_t i = 0, batch = 1; i < stream->count; i++, batch++) {
    if (batch == BATCH || i + 1 == stream->count) {
      ((struct nlmsghdr *)(stream->bytes + last_start))->nlmsg_flags |= NLM_F_ACK;
      if (send(fd, stream->bytes + start, stream->ends[i] - start, 0) < 0) err(1, "send");
      await_answer((uint32_t)i);
      start = stream->ends[i];
      batch = 0;
    }
    last_start = stream->ends[i];
  }
  uint64_t took = (now_ns() - started) / 1000;
  printf("%s %llu\n", what, (unsigned long long)took);
  return took;
}

static int make_link(void) {
  if (system("ip link add flannel.1 mtu 1450 type vxlan id 1 dev eth0 dstport 8472 nolearning && "
             "ip address add 10.255.255.0/32 dev flannel.1 && ip link set flannel.1 up") != 0) {
    errx(1, "flannel.1 cannot be made");
  }
  int link = (int)if_nametoindex("flannel.1");
  if (link == 0) err(1, "flannel.1");
  return link;
}

int main(int argc, char **argv) {
  uint32_t count = argc == 3 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
  bool gateway = argc == 3 && strcmp(argv[2], "gateway") == 0;
  bool only_fdb = argc == 3 && strcmp(argv[2], "l3miss") == 0;
  if (count == 0 || count > 65000 || !(gateway || only_fdb || strcmp(argv[2], "static") == 0)) {
    errx(2, "usage: floor N static|l3miss|gateway");
  }
  int link = make_link();
  struct stream fdb = { 0 }, neighbours = { 0 }, nexthops = { 0 }, routes = { 0 };
  for (uint32_t i = 1; i <= count; i++) {
    add_fdb(&fdb, link, i);
    if (only_fdb) continue;
    add_neighbour(&neighbours, link, i);
    if (!gateway) add_nexthop(&nexthops, link, i);
    add_route(&routes, link, i, gateway);
  }
  fd = open_rtnetlink(0, ANSWER_BUFFER);
  uint64_t sum = send_all("fdb", &fdb);
  if (neighbours.count > 0) sum += send_all("neighbour", &neighbours);
  if (nexthops.count > 0) sum += send_all("nexthop", &nexthops);
  if (routes.count > 0) sum += send_all("route", &routes);
  printf("sum %llu\n", (unsigned long long)sum);
  return 0;
}
