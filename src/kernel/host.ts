/** The facts of this host that plans need: the external interface by flannel's rules, links, routes of the underlay. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Family, Ip, PerFamily } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import { type Prefix, prefixFamily, prefixOf } from '../address/prefix.ts'
import { Connection, Subscription } from '../netlink/connection.ts'
import type { Message } from '../netlink/message.ts'
import { decodeRoute, decodeRouteProtocol, getRoutes } from '../netlink/route.ts'
import {
  AF_INET,
  AF_INET6,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_LINK,
} from '../netlink/rtnetlink.ts'
import { MAIN_TABLE, PROTOCOL } from '../state.ts'
import { type Interface, listInterfaces } from './interfaces.ts'
import { type MainRoute, readMainTable, type UnderlayRoute, underlayRoutes } from './main-table.ts'
import { FAMILY_NAMES, HostError, type InterfaceChoice, type Selected, selectInterface } from './selection.ts'

export interface HostInterfaces {
  /** The interface that carries the outer packets. */
  readonly external: {
    readonly name: string
    readonly index: number
    readonly mtu: number
    /** Sources of outer packets. */
    readonly addresses: PerFamily<Ip>
  }
  /** What peers send to: not local when the host is behind NAT. */
  readonly publicIps: PerFamily<Ip>
  readonly links: Links
  /** Empty unless it was asked for. */
  readonly underlay: readonly UnderlayRoute[]
}

/** All links by name. */
export type Links = ReadonlyMap<string, { readonly mac: Mac | undefined; readonly addresses: readonly Ip[] }>

/** Which facts are wanted. */
export interface HostQuestion {
  readonly choice: InterfaceChoice
  /** Those of the network: the external interface must have an address of each. */
  readonly families: readonly Family[]
  /** Whether routes of the underlay matter. */
  readonly underlay: boolean
}

/** Milliseconds: a change of an interface is several (address, route, up), which come within this time. */
const SETTLE_TIME = 200

/** Links of a flannel network, of whatever backend: what goes over them is the overlay. */
const OVERLAY_LINK = /^flannel/

/** @param netns Path of a network namespace; undefined for the process's own. @throws {HostError} */
export async function readInterfaces(
  { choice, families, underlay }: HostQuestion,
  netns?: string,
): Promise<HostInterfaces> {
  const connection = Connection.open({ netns })
  try {
    const interfaces = await listInterfaces(connection)
    let routes: readonly MainRoute[] | undefined
    const readRoutes = async (): Promise<readonly MainRoute[]> =>
      (routes ??= await readMainTable(connection, families))
    const selected = await selectInterface(connection, { interfaces, families }, choice, readRoutes)
    const { index } = selected.found
    return {
      ...describe(selected, families, choice),
      links: new Map(interfaces.map((link) => [link.name, { mac: link.mac, addresses: allAddresses(link) }])),
      underlay: underlay ? underlayRoutes(await readRoutes(), index, overlayLinks(interfaces)) : [],
    }
  } finally {
    connection.close()
  }
}

/** @throws {HostError} when the interface has no address of a family. */
function describe(
  { found, addresses: chosen }: Selected,
  families: readonly Family[],
  choice: InterfaceChoice,
): Pick<HostInterfaces, 'external' | 'publicIps'> {
  const { name, index, mtu } = found
  const addresses: Partial<Record<Family, Ip>> = {}
  const publicIps: Partial<Record<Family, Ip>> = {}
  for (const family of families) {
    const own = chosen[family] ?? found.addresses[family][0]
    if (own === undefined)
      throw new HostError(`failed to find ${FAMILY_NAMES[family]} address for interface ${name}`)
    const publicIp = choice.publicIps[family] ?? own
    addresses[family] = found.addresses[family].includes(publicIp) ? publicIp : own
    publicIps[family] = publicIp
  }
  return { external: { name, index, mtu, addresses }, publicIps }
}

function allAddresses({ addresses }: Interface): Ip[] {
  return [...addresses.inet, ...addresses.inet6]
}

function overlayLinks(interfaces: readonly Interface[]): Set<number> {
  return new Set(interfaces.filter(({ name }) => OVERLAY_LINK.test(name)).map(({ index }) => index))
}

/**
 * Yields when the facts may have changed, once for changes that come together; and once at first, for what changed before
 * anybody watched.
 * @param netns Path of a network namespace; undefined for the process's own.
 */
export async function* watchInterfaces(
  question: HostQuestion,
  signal: AbortSignal,
  netns?: string,
): AsyncGenerator<void, void> {
  const groups = [RTNLGRP_LINK, ...question.families.flatMap((family) => GROUPS[family])]
  const subscription = Subscription.open({ netns, groups, signal })
  try {
    for (let matters = true; !signal.aborted; ) {
      if (matters) yield
      if (!(await subscription.readable())) return
      await sleep(SETTLE_TIME, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) return
      matters = subscription
        .drain()
        .some(
          (event) =>
            event.kind === 'overrun' || event.messages.some((message) => mayMatter(message, question)),
        )
    }
  } finally {
    subscription.close()
  }
}

const GROUPS = {
  inet: [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE],
  inet6: [RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE],
} as const satisfies Record<Family, readonly number[]>

/** Each lease brings a route of ours, which never matters. */
function mayMatter({ type, payload }: Message, { choice, underlay }: HostQuestion): boolean {
  if (type !== RTM_NEWROUTE && type !== RTM_DELROUTE) return true
  if (decodeRouteProtocol(payload) === PROTOCOL) return false
  const { destinationLength, table } = decodeRoute(payload)
  return choice.canReach !== undefined || destinationLength === 0 || (underlay && table === MAIN_TABLE)
}

/** Whether the main table of the process's own namespace reaches the prefix through a gateway. */
export async function hasGatewayRoute(wanted: Prefix): Promise<boolean> {
  const connection = Connection.open()
  try {
    const family = prefixFamily(wanted) === 'inet' ? AF_INET : AF_INET6
    let found = false
    await connection.dump(getRoutes(family, { table: MAIN_TABLE }), ({ payload }) => {
      const { destination, destinationLength, gateway, table } = decodeRoute(payload)
      if (destination === undefined || gateway === undefined || table !== MAIN_TABLE) return
      found ||= prefixOf(destination, destinationLength) === wanted
    })
    return found
  } finally {
    connection.close()
  }
}
