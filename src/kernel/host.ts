/** The facts of this host that plans need: the external interface by flannel's rules, and the links that exist. */

import { setTimeout as sleep } from 'node:timers/promises'
import { type Ip, isLinkLocal, isLoopback } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import { type Prefix, prefixOf } from '../address/prefix.ts'
import { decodeAddress, getAddresses, IFA_F_DEPRECATED } from '../netlink/address.ts'
import { Connection, Subscription } from '../netlink/connection.ts'
import { decodeLink, getLinks } from '../netlink/link.ts'
import { type Message, NetlinkError } from '../netlink/message.ts'
import { decodeRoute, getRoute, getRoutes } from '../netlink/route.ts'
import {
  AF_INET,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_LINK,
} from '../netlink/rtnetlink.ts'
import { MAIN_TABLE } from '../state.ts'

export interface ExternalInterface {
  readonly name: string
  readonly index: number
  readonly mtu: number
  /** Source address of outer packets. */
  readonly address: Ip
  /** What peers send to: not local when the host is behind NAT. */
  readonly publicIp: Ip
}

/** Milliseconds: a change of an interface is several (address, route, up), which come within this time. */
const SETTLE_TIME = 200

/** No interface can be used. The message says which were looked at. */
export class HostError extends Error {
  override readonly name = 'HostError'
}

interface Interface {
  readonly name: string
  readonly index: number
  readonly mtu: number
  readonly mac: Mac | undefined
  /** Usable ones, global before link-local. */
  readonly addresses: Ip[]
}

/** How an operator says which interface: tried in this order, and the first that is found is taken. */
export interface InterfaceChoice {
  /** Names or IPs. */
  readonly ifaces: readonly string[]
  /** Matched against all addresses, then against all names. */
  readonly regexes: readonly RegExp[]
  /** The interface through which the kernel would reach this address. */
  readonly canReach: Ip | undefined
  /** What peers shall send to; undefined: the address of the interface. */
  readonly publicIp: Ip | undefined
}

export type Links = ReadonlyMap<string, { readonly mac: Mac | undefined; readonly addresses: readonly Ip[] }>

/**
 * The external interface, and all links by name with their IPv4 addresses.
 * @param netns Path of a network namespace; undefined for the process's own. @throws {HostError}
 */
export async function readInterfaces(
  choice: InterfaceChoice,
  netns?: string,
): Promise<{ external: ExternalInterface; links: Links }> {
  const connection = Connection.open({ netns })
  try {
    const interfaces = await listInterfaces(connection)
    const external = await readExternalInterface(connection, interfaces, choice)
    const links = new Map(interfaces.map(({ name, mac, addresses }) => [name, { mac, addresses }]))
    return { external, links }
  } finally {
    connection.close()
  }
}

/**
 * Yields when links, addresses or the routes that a choice looks at may have changed in the process's own namespace,
 * once for changes that come together; and once at first, for what changed before anybody watched.
 */
export async function* watchInterfaces(
  choice: InterfaceChoice,
  signal: AbortSignal,
): AsyncGenerator<void, void> {
  const groups = [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE]
  const subscription = Subscription.open({ groups, signal })
  try {
    for (let matters = true; !signal.aborted; ) {
      if (matters) yield
      if (!(await subscription.readable())) return
      await sleep(SETTLE_TIME, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) return
      matters = subscription
        .drain()
        .some(
          (event) => event.kind === 'overrun' || event.messages.some((message) => mayMatter(message, choice)),
        )
    }
  } finally {
    subscription.close()
  }
}

/** Each lease brings a route, and of routes only a default route matters, or any for `canReach`. */
function mayMatter({ type, payload }: Message, { canReach }: InterfaceChoice): boolean {
  if (type !== RTM_NEWROUTE && type !== RTM_DELROUTE) return true
  return canReach !== undefined || decodeRoute(payload).destinationLength === 0
}

/** Whether the main table of the process's own namespace reaches the prefix through a gateway. */
export async function hasGatewayRoute(prefix: Prefix): Promise<boolean> {
  const connection = Connection.open()
  try {
    let found = false
    await connection.dump(getRoutes(AF_INET, { table: MAIN_TABLE }), ({ payload }) => {
      const { destination, destinationLength, gateway, table } = decodeRoute(payload)
      if (destination === undefined || gateway === undefined || table !== MAIN_TABLE) return
      found ||= prefixOf(destination, destinationLength) === prefix
    })
    return found
  } finally {
    connection.close()
  }
}

/**
 * flannel's selection: what the choice says; when it says nothing, the interface that has the public IP; else that of
 * the default route. IPv4 only, for now. @throws {HostError}
 */
async function readExternalInterface(
  connection: Connection,
  interfaces: readonly Interface[],
  choice: InterfaceChoice,
): Promise<ExternalInterface> {
  const { found, address: chosen } = await select(connection, interfaces, choice)
  const { name, index, mtu, addresses } = found
  const own = chosen ?? addresses[0]
  if (own === undefined) throw new HostError(`failed to find IPv4 address for interface ${name}`)
  const { publicIp = own } = choice
  return { name, index, mtu, address: addresses.includes(publicIp) ? publicIp : own, publicIp }
}

interface Selected {
  readonly found: Interface
  /** Where the choice named one of its addresses. */
  readonly address?: Ip | undefined
}

async function select(
  connection: Connection,
  interfaces: readonly Interface[],
  choice: InterfaceChoice,
): Promise<Selected> {
  const { ifaces, regexes, canReach, publicIp } = choice
  const listed = interfaces.map(({ name, addresses }) => `${name}:[${addresses.join(' ')}]`).join(', ')
  for (const iface of ifaces) {
    const selected = byName(interfaces, iface) ?? byAddress(interfaces, (ip) => ip === iface)
    if (selected !== undefined) return selected
  }
  for (const regex of regexes) {
    const named = interfaces.find(({ name }) => regex.test(name))
    const selected = byAddress(interfaces, (ip) => regex.test(ip)) ?? (named && { found: named })
    if (selected !== undefined) return selected
  }
  if (canReach !== undefined) return await reaching(connection, interfaces, canReach)
  if (ifaces.length + regexes.length > 0) {
    const wanted = [...ifaces, ...regexes].join(', ')
    throw new HostError(`failed to find interface to use that matches ${wanted} (there are ${listed})`)
  }
  const local = publicIp && byAddress(interfaces, (ip) => ip === publicIp)
  if (local !== undefined) return local
  const index = await defaultRouteIndex(connection)
  const found = interfaces.find((candidate) => candidate.index === index)
  if (found !== undefined) return { found }
  throw new HostError(
    `there is no default route: -iface must say which interface to use (there are ${listed})`,
  )
}

function byName(interfaces: readonly Interface[], wanted: string): Selected | undefined {
  const found = interfaces.find(({ name }) => name === wanted)
  return found && { found }
}

function byAddress(interfaces: readonly Interface[], matches: (ip: Ip) => boolean): Selected | undefined {
  for (const found of interfaces) {
    const address = found.addresses.find(matches)
    if (address !== undefined) return { found, address }
  }
  return undefined
}

/** The interface, and the source address, that the kernel chooses for a packet to the address. */
async function reaching(
  connection: Connection,
  interfaces: readonly Interface[],
  destination: Ip,
): Promise<Selected> {
  try {
    const { oif, preferredSource } = decodeRoute((await connection.get(getRoute(destination))).payload)
    const found = interfaces.find(({ index }) => index === oif)
    if (found !== undefined) return { found, address: preferredSource }
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
  }
  throw new HostError(`-iface-can-reach is ${destination}: this host has no route to it`)
}

async function listInterfaces(connection: Connection): Promise<Interface[]> {
  const interfaces = new Map<number, Interface>()
  await connection.dump(getLinks(), ({ payload }) => {
    const { index, name = '', mtu = 0, mac } = decodeLink(payload)
    interfaces.set(index, { index, name, mtu, mac, addresses: [] })
  })
  const linkLocal: [Interface, Ip][] = []
  await connection.dump(getAddresses(AF_INET), ({ payload }) => {
    const { ifindex, flags, local } = decodeAddress(payload)
    const found = interfaces.get(ifindex)
    if (found === undefined || local === undefined || isLoopback(local) || (flags & IFA_F_DEPRECATED) !== 0)
      return
    if (isLinkLocal(local)) linkLocal.push([found, local])
    else found.addresses.push(local)
  })
  for (const [found, ip] of linkLocal) found.addresses.push(ip)
  return [...interfaces.values()]
}

/** The interface of the default route with the lowest metric. */
async function defaultRouteIndex(connection: Connection): Promise<number | undefined> {
  const routes: { oif: number; priority: number }[] = []
  await connection.dump(getRoutes(AF_INET, { table: MAIN_TABLE }), ({ payload }) => {
    const { destinationLength, oif, priority = 0, table } = decodeRoute(payload)
    if (destinationLength === 0 && oif !== undefined && table === MAIN_TABLE) routes.push({ oif, priority })
  })
  return routes.sort((a, b) => a.priority - b.priority)[0]?.oif
}
