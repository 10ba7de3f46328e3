/** The network of the benches: N peers that are nothing but leases, and a host that is to know them. */

/** Where the network is on a host. */
export const LINK = 'flannel.1'

/** What a peer says of itself; `floor.c` and `arrivals.c` know the same numbers. */
export interface Peer {
  /** `10.0.1.0-24` */
  readonly key: string
  /** `10.0.1.0/24` */
  readonly subnet: string
  readonly mac: string
  /** As flannel writes it. */
  readonly value: string
}

/** @param i From 1 to 65,023. */
export function peer(i: number): Peer {
  const base = `10.${i >> 8}.${i & 255}.0`
  const mac = `02:42:00:${[i >> 16, (i >> 8) & 255, i & 255].map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`
  const publicIp = `172.${16 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`
  const data = { VNI: 1, VtepMAC: mac }
  return {
    key: `${base}-24`,
    subnet: `${base}/24`,
    mac,
    value: JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, BackendType: 'vxlan', BackendData: data }),
  }
}

export type Mode = 'static' | 'l3miss'

/** `Backend` of the network config. */
export interface BackendSettings {
  readonly Type: string
  readonly [setting: string]: string | number | boolean
}

export const MODES: Readonly<Record<Mode, BackendSettings>> = {
  static: { Type: 'vxlan' },
  l3miss: { Type: 'vxlan', L3Miss: true },
}

/** The hosts' own subnets are where no peer is. */
export function networkConfig(Backend: BackendSettings): string {
  return JSON.stringify({ Network: '10.0.0.0/8', SubnetMin: '10.254.0.0', Backend })
}

/** `40,000` */
export function count(n: number): string {
  return n.toLocaleString('en')
}
