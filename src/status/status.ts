/**
 * What an agent says of itself: `GET /status` on its socket, `tweed status`. Pure: a view of what the agent knows.
 *
 * As in flannel's files, a name that does not say IPv6 is that of IPv4, and what a network does not have is empty.
 */

export type PeerState = 'in sync' | 'failed' | 'refused' | 'ignored'

export interface PeerStatus {
  /** `10.10.11.0/24`; the registry's key where it could not be read as a lease. */
  readonly subnet: string
  readonly ipv6Subnet: string
  readonly publicIp: string
  readonly publicIpv6: string
  readonly state: PeerState
  /** What failed, or why the lease is refused; empty when in sync. */
  readonly why: string
}

export interface Status {
  readonly version: string
  /** Seconds since the agent started. */
  readonly uptime: number
  readonly network: string
  readonly ipv6Network: string
  readonly backend: string
  readonly externalInterface: string
  readonly publicIp: string
  readonly publicIpv6: string
  /** The one that has our address in the overlay. */
  readonly link: string
  readonly mac: string
  readonly ipv6Link: string
  readonly ipv6Mac: string
  /** FLANNEL_MTU: for workloads. */
  readonly mtu: number
  readonly lease: {
    readonly subnet: string
    readonly ipv6Subnet: string
    /** ISO 8601; null: a reservation. */
    readonly expires: string | null
  }
  readonly registry: { readonly name: string; readonly available: boolean; readonly why: string }
  readonly peers: readonly PeerStatus[]
  /** What of our own (link, address, network route) is not as desired. */
  readonly problems: readonly string[]
  readonly ready: boolean
  readonly counters: Counters
}

export interface Counters {
  readonly turns: number
  readonly operations: number
  readonly failures: number
  /** Operations that put back what somebody else had changed. */
  readonly repaired: number
  readonly missesAnswered: number
  readonly missesRefused: number
  readonly leasesRefused: number
  readonly overruns: number
  /** How often the registry became unavailable. */
  readonly disconnects: number
  /** That all turns took together. */
  readonly milliseconds: number
}
