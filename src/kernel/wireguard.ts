/**
 * WireGuard devices, read and changed: the kernel's over generic netlink, those of wireguard-go over their sockets. A
 * link of the kind `wireguard` is the kernel's; a TUN link with our name is a process's, if its socket answers.
 */

import { NO_KEY, publicKeyOf, Secret, type WireguardKey } from '../address/key.ts'
import { Connection } from '../netlink/connection.ts'
import { decodeFamily, getFamily, NETLINK_GENERIC } from '../netlink/generic.ts'
import { NetlinkError, type Request } from '../netlink/message.ts'
import {
  decodeWireguard,
  getWireguard,
  joinWireguard,
  setWireguard,
  WIREGUARD,
} from '../netlink/wireguard.ts'
import type { WireguardDevice, WireguardPeer } from '../netlink/wireguard-device.ts'
import { changeWireguardProcess, readWireguardProcess, UapiError } from '../netlink/wireguard-socket.ts'
import type { Failure, Link, Operation, Peer, Wireguard } from '../state.ts'
import { dump } from './dump.ts'
import { startWireguardGo, type WireguardGoOptions } from './wireguard-go.ts'

export interface WireguardOptions extends WireguardGoOptions {
  /** Milliseconds between two looks at the peers, of which nobody tells. */
  readonly interval?: number | undefined
}

type Change = Omit<Partial<WireguardDevice>, 'ifindex' | 'name' | 'publicKey'>

/** What a device holds. */
export interface DeviceFacts {
  readonly tunnel: Wireguard
  readonly peers: readonly { readonly peer: Peer; readonly silence: number | undefined }[]
}

export class WireguardDevices implements Disposable {
  readonly #netns: string | undefined
  readonly #options: WireguardOptions
  readonly #connection: Connection
  #family: number | undefined
  /** The links that were found, each with its kind. */
  readonly #kinds = new Map<string, string>()
  /** The last private key that a process told, which costs more to derive than to remember. */
  #derived: { readonly privateKey: WireguardKey; readonly publicKey: WireguardKey } | undefined

  /** @param netns Path of a network namespace; undefined for the process's own. */
  constructor(netns: string | undefined, options: WireguardOptions) {
    this.#netns = netns
    this.#options = options
    this.#connection = Connection.open({ netns, protocol: NETLINK_GENERIC })
  }

  /** Before all links are read. */
  clear(): void {
    this.#kinds.clear()
  }

  found(link: string, kind: string | undefined): void {
    this.#kinds.set(link, kind ?? '')
  }

  get links(): string[] {
    return [...this.#kinds.keys()]
  }

  /** Undefined when the link is no WireGuard device, or is gone. @throws {NetlinkError} {@link UapiError} */
  async read(link: string): Promise<DeviceFacts | undefined> {
    const device = await this.#read(link)
    if (device === undefined) return undefined
    const now = Date.now()
    return {
      tunnel: {
        type: 'wireguard',
        publicKey: device.publicKey ?? this.#derive(device.privateKey),
        privateKey: undefined,
        listenPort: device.listenPort ?? 0,
      },
      peers: device.peers.map((peer) => ({ peer: readPeer(link, peer), silence: silenceOf(peer, now) })),
    }
  }

  /**
   * Makes the link, in the kernel or with wireguard-go.
   *
   * @param inKernel The request for the kernel's.
   * @throws {NetlinkError} {@link NoWireguard}
   */
  async create(link: string, inKernel: () => Promise<void>): Promise<void> {
    try {
      await inKernel()
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.code !== 'EOPNOTSUPP') throw error
      await startWireguardGo(link, this.#netns, this.#options)
    }
  }

  /** Gives a device what differs of key and port. @throws {NetlinkError} {@link UapiError} */
  async configure({ name, tunnel }: Link, actual: Link): Promise<void> {
    if (tunnel?.type !== 'wireguard') return
    const held = actual.tunnel?.type === 'wireguard' ? actual.tunnel : undefined
    const change: Change = {
      privateKey: tunnel.publicKey === held?.publicKey ? undefined : tunnel.privateKey?.reveal(),
      listenPort: tunnel.listenPort === held?.listenPort ? undefined : tunnel.listenPort,
    }
    await this.#change(name, [change]).then(([error]) => {
      if (error !== undefined) throw error
    })
  }

  /** Applies operations on peers in the order given. A failed one stops no other; each failure is returned. */
  async apply(operations: readonly Operation[]): Promise<Failure[]> {
    const failures: Failure[] = []
    for (const [link, ofLink] of Map.groupBy(operations, ({ entry }) => linkOf(entry))) {
      const changes = ofLink.map((operation) => ({ peers: encodePeer(operation) }))
      const results = await this.#change(link, changes)
      for (const [i, operation] of ofLink.entries()) {
        const error = results[i]
        if (error !== undefined) failures.push({ operation, error })
      }
    }
    return failures
  }

  close(): void {
    this.#connection.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  async #read(link: string): Promise<WireguardDevice | undefined> {
    const kind = this.#kinds.get(link)
    try {
      if (kind === WIREGUARD) return await this.#readKernel(link)
      return kind === 'tun' ? await readWireguardProcess(link, this.#options) : undefined
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  }

  async #readKernel(name: string): Promise<WireguardDevice> {
    const parts: WireguardDevice[] = []
    const request = getWireguard(await this.#familyNumber(), { name })
    await dump(this.#connection, request, ({ payload }) => parts.push(decodeWireguard(payload)))
    return joinWireguard(parts)
  }

  /** One result for each change, in their order. */
  async #change(link: string, changes: readonly Change[]): Promise<(Error | undefined)[]> {
    if (this.#kinds.get(link) === 'tun') return await this.#changeProcess(link, changes)
    const family = await this.#familyNumber()
    const requests: Request[] = []
    const owners: number[] = []
    for (const [i, change] of changes.entries()) {
      for (const request of setWireguard(family, { name: link }, change)) {
        requests.push(request)
        owners.push(i)
      }
    }
    const results: (Error | undefined)[] = changes.map(() => undefined)
    for (const [i, error] of await this.#connection.batch(requests)) {
      const owner = owners[i]
      if (owner !== undefined) results[owner] ??= error
    }
    return results
  }

  /** All in one request; when that is refused, one after the other, which tells whose fault it is. */
  async #changeProcess(link: string, changes: readonly Change[]): Promise<(Error | undefined)[]> {
    const all = { ...changes[0], peers: changes.flatMap(({ peers = [] }) => peers) }
    const error = await this.#tryProcess(link, all)
    if (error === undefined || changes.length === 1) return changes.map(() => error)
    const results: (Error | undefined)[] = []
    for (const change of changes) results.push(await this.#tryProcess(link, change))
    return results
  }

  async #tryProcess(link: string, change: Change): Promise<Error | undefined> {
    try {
      await changeWireguardProcess(link, change, this.#options)
      return undefined
    } catch (error) {
      if (error instanceof UapiError) return error
      throw error
    }
  }

  async #familyNumber(): Promise<number> {
    if (this.#family === undefined) {
      const { id } = decodeFamily((await this.#connection.get(getFamily(WIREGUARD))).payload)
      if (id === undefined) throw new Error('the kernel told no number for the generic family wireguard')
      this.#family = id
    }
    return this.#family
  }

  #derive(privateKey: WireguardKey | undefined): WireguardKey | undefined {
    if (privateKey === undefined) return undefined
    if (this.#derived?.privateKey !== privateKey)
      this.#derived = { privateKey, publicKey: publicKeyOf(privateKey) }
    return this.#derived.publicKey
  }
}

/** The link went, it is of another kind, or no process has it. */
function isAbsent(error: unknown): boolean {
  if (error instanceof NetlinkError) return error.code === 'ENODEV' || error.code === 'EOPNOTSUPP'
  return error instanceof UapiError && (error.code === 'ENOENT' || error.code === 'ECONNREFUSED')
}

function readPeer(link: string, peer: WireguardPeer): Peer {
  const { publicKey, presharedKey = NO_KEY, endpoint, persistentKeepalive = 0, allowedIps } = peer
  return {
    kind: 'peer',
    link,
    publicKey,
    presharedKey: presharedKey === NO_KEY ? undefined : new Secret(presharedKey),
    endpoint: endpoint?.address,
    port: endpoint?.port,
    keepalive: persistentKeepalive,
    allowedIps: allowedIps.toSorted(),
  }
}

/** Milliseconds since the last handshake. */
function silenceOf({ lastHandshake = 0n }: WireguardPeer, now: number): number | undefined {
  return lastHandshake === 0n ? undefined : now - Number(lastHandshake / 1_000_000n)
}

/**
 * Allowed IPs that come to a peer are taken from the one who had them. Of what shall be, no two peers have the same, so
 * the order of such changes makes no difference; and who is removed comes after.
 */
function encodePeer({ verb, entry, actual }: Operation): WireguardPeer[] {
  if (entry.kind !== 'peer') return []
  const { publicKey, presharedKey, endpoint: address, port, keepalive, allowedIps } = entry
  if (verb === 'delete') return [{ publicKey, remove: true, allowedIps: [] }]
  const held = actual?.kind === 'peer' ? actual : undefined
  const isThere = held?.endpoint === address && held?.port === port
  const isKey =
    held !== undefined && (presharedKey?.equals(held.presharedKey) ?? held.presharedKey === undefined)
  const isAllowed = held?.allowedIps.join() === allowedIps.join()
  return [
    {
      publicKey,
      // One that went meanwhile would come back as half a peer.
      updateOnly: held !== undefined,
      presharedKey: isKey ? undefined : (presharedKey?.reveal() ?? NO_KEY),
      endpoint: isThere || address === undefined || port === undefined ? undefined : { address, port },
      persistentKeepalive: held?.keepalive === keepalive ? undefined : keepalive,
      replaceAllowedIps: !isAllowed,
      allowedIps: isAllowed ? [] : allowedIps,
    },
  ]
}

function linkOf(entry: Operation['entry']): string {
  return entry.kind === 'peer' ? entry.link : ''
}
