/** What all rtnetlink objects share: address families, message types, multicast groups (linux/rtnetlink.h). */

export const NETLINK_ROUTE = 0

export const AF_UNSPEC = 0
export const AF_INET = 2
export const AF_BRIDGE = 7
export const AF_INET6 = 10

export const RTM_NEWLINK = 16
export const RTM_DELLINK = 17
export const RTM_GETLINK = 18
export const RTM_SETLINK = 19
export const RTM_NEWADDR = 20
export const RTM_DELADDR = 21
export const RTM_GETADDR = 22
export const RTM_NEWROUTE = 24
export const RTM_DELROUTE = 25
export const RTM_GETROUTE = 26
export const RTM_NEWNEIGH = 28
export const RTM_DELNEIGH = 29
export const RTM_GETNEIGH = 30
export const RTM_NEWNEIGHTBL = 64
export const RTM_GETNEIGHTBL = 66
export const RTM_SETNEIGHTBL = 67
export const RTM_NEWNEXTHOP = 104
export const RTM_DELNEXTHOP = 105
export const RTM_GETNEXTHOP = 106

/** Multicast groups, for NETLINK_ADD_MEMBERSHIP. */
export const RTNLGRP_LINK = 1
export const RTNLGRP_NEIGH = 3
export const RTNLGRP_IPV4_IFADDR = 5
export const RTNLGRP_IPV4_ROUTE = 7
export const RTNLGRP_IPV6_IFADDR = 9
export const RTNLGRP_IPV6_ROUTE = 11
export const RTNLGRP_NEXTHOP = 32

const NAMES = new Map(
  Object.entries({
    RTM_NEWLINK,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_SETLINK,
    RTM_NEWADDR,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWROUTE,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWNEIGH,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_NEWNEIGHTBL,
    RTM_GETNEIGHTBL,
    RTM_SETNEIGHTBL,
    RTM_NEWNEXTHOP,
    RTM_DELNEXTHOP,
    RTM_GETNEXTHOP,
  }).map(([name, type]) => [type, name]),
)

/** `RTM_NEWLINK` for 16; the number as text for a type that is not listed here. */
export function messageTypeName(type: number): string {
  return NAMES.get(type) ?? `message type ${type}`
}
