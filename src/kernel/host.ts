/** The facts of this host that plans need: the external interface by flannel's rules, and the links that exist. */

import { type Ip, isLinkLocal, isLoopback } from '../address/ip.ts'
import type { Mac } from '../address/mac.ts'
import { decodeAddress, getAddresses, IFA_F_DEPRECATED } from '../netlink/address.ts'
import type { Connection } from '../netlink/connection.ts'
import { decodeLink, getLinks } from '../netlink/link.ts'
import { decodeRoute, getRoutes } from '../netlink/route.ts'
import { AF_INET } from '../netlink/rtnetlink.ts'
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

/**
 * flannel's selection: the interface by name or address; else the one that has the public IP; else that of the
 * default route. IPv4 only, for now.
 * @param iface Name or IP, or undefined. @param publicIp or undefined: the interface's own address.
 * @throws {HostError}
 */
export async function readExternalInterface(
  connection: Connection,
  iface: string | undefined,
  publicIp: Ip | undefined,
): Promise<ExternalInterface> {
  const interfaces = await readInterfaces(connection)
  const found = await select(connection, interfaces, iface, publicIp)
  const own = found.addresses[0]
  if (own === undefined) throw new HostError(`failed to find IPv4 address for interface ${found.name}`)
  const { name, index, mtu, addresses } = found
  const address = publicIp !== undefined && addresses.includes(publicIp) ? publicIp : own
  return { name, index, mtu, address, publicIp: publicIp ?? own }
}

/** The MACs of the links that exist, by name. */
export async function readMacs(connection: Connection): Promise<Map<string, Mac>> {
  const macs = new Map<string, Mac>()
  for (const { name, mac } of await readInterfaces(connection)) if (mac !== undefined) macs.set(name, mac)
  return macs
}

async function select(
  connection: Connection,
  interfaces: readonly Interface[],
  iface: string | undefined,
  publicIp: Ip | undefined,
): Promise<Interface> {
  const listed = interfaces.map(({ name, addresses }) => `${name}:[${addresses.join(' ')}]`).join(', ')
  if (iface !== undefined) {
    const found = interfaces.find(
      ({ name, addresses }) => name === iface || addresses.some((ip) => ip === iface),
    )
    if (found !== undefined) return found
    throw new HostError(
      `-iface is ${JSON.stringify(iface)}: no interface has that name or address (${listed})`,
    )
  }
  if (publicIp !== undefined) {
    const found = interfaces.find(({ addresses }) => addresses.includes(publicIp))
    if (found !== undefined) return found
    throw new HostError(
      `-public-ip is ${publicIp}: no interface has it, so -iface must say which to use (${listed})`,
    )
  }
  const index = await defaultRouteIndex(connection)
  const found = interfaces.find((candidate) => candidate.index === index)
  if (found !== undefined) return found
  throw new HostError(`there is no default route: -iface must say which interface to use (${listed})`)
}

async function readInterfaces(connection: Connection): Promise<Interface[]> {
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
