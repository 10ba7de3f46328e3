/**
 * WireGuard devices as values, the same for the kernel (`wireguard.ts`) and for a process that stands in for it
 * (`wireguard-uapi.ts`). What is absent in what was read was not told; what is absent in a change stays as it is.
 */

import type { Ip } from '../address/ip.ts'
import type { WireguardKey } from '../address/key.ts'
import type { Prefix } from '../address/prefix.ts'
import type { Attribute } from './attribute.ts'

/** Where a peer's datagrams go to and came from. */
export interface Endpoint {
  readonly address: Ip
  readonly port: number
  /**
   * Of a link-local IPv6 address: the link. The kernel says its index; a process says its index or its name, and
   * takes both.
   */
  readonly zone?: string | undefined
}

export interface WireguardPeer {
  readonly publicKey: WireguardKey
  /** NO_KEY: there is none. */
  readonly presharedKey?: WireguardKey | undefined
  /** Not told before one is known. */
  readonly endpoint?: Endpoint | undefined
  /** Seconds; 0: off. */
  readonly persistentKeepalive?: number | undefined
  /** Of one device no two peers have the same: the last who is given it takes it from the other. */
  readonly allowedIps: readonly Prefix[]

  /** Told only. Nanoseconds since 1970; 0: never. */
  readonly lastHandshake?: bigint | undefined
  /** Told only. Bytes, with the headers. */
  readonly rxBytes?: bigint | undefined
  readonly txBytes?: bigint | undefined
  readonly protocolVersion?: number | undefined

  /** In a change: the peer goes. */
  readonly remove?: boolean | undefined
  /** In a change: nothing happens when there is no such peer. */
  readonly updateOnly?: boolean | undefined
  /** In a change: `allowedIps` are all, and not to be added. */
  readonly replaceAllowedIps?: boolean | undefined
  readonly unknown?: readonly Attribute[] | undefined
}

export interface WireguardDevice {
  readonly ifindex?: number | undefined
  readonly name?: string | undefined
  /** Not told when there is none; NO_KEY in a change removes it. */
  readonly privateKey?: WireguardKey | undefined
  /** Told by the kernel only, and only with a private key. */
  readonly publicKey?: WireguardKey | undefined
  /** UDP. 0 in a change: any that is free. A process does not tell 0. */
  readonly listenPort?: number | undefined
  /** SO_MARK of what is sent; 0: none, which a process does not tell. */
  readonly fwmark?: number | undefined
  readonly peers: readonly WireguardPeer[]

  /** In a change: `peers` are all, and not to be added or changed. */
  readonly replacePeers?: boolean | undefined
  readonly unknown?: readonly Attribute[] | undefined
}
