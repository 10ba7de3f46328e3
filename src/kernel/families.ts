/** What the kernel calls the families, and what it tells of them. */

import type { Family } from '../address/ip.ts'
import { prefixFamily } from '../address/prefix.ts'
import {
  AF_INET,
  AF_INET6,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
  RTNLGRP_NEXTHOP,
} from '../netlink/rtnetlink.ts'
import type { Scope } from '../state.ts'

const FAMILIES = {
  inet: { number: AF_INET, groups: [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE] },
  inet6: { number: AF_INET6, groups: [RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE] },
} as const satisfies Record<Family, unknown>

/** The groups that a subscription for a mirror joins: a family that no network has costs nothing. */
export function mirrorGroups(scope: Scope, nexthopObjects: boolean): number[] {
  const groups = [
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    ...familiesOf(scope).flatMap((family) => FAMILIES[family].groups),
  ]
  return nexthopObjects ? [...groups, RTNLGRP_NEXTHOP] : groups
}

export function familiesOf({ networks }: Scope): Family[] {
  return [...new Set(networks.map(prefixFamily))]
}

export function familyNumber(family: Family): typeof AF_INET | typeof AF_INET6 {
  return FAMILIES[family].number
}
