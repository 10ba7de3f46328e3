/** What flanneld does on a host with its host-gw and direct-routing vxlan backends, by hand. */

import { writeFile } from 'node:fs/promises'
import { prefixBase } from '../../src/address/prefix.ts'
import { bridge, ip } from '../../src/lab/command.ts'
import { containerAddresses, type LabHost } from '../../src/lab/topology.ts'
import { peerOf } from './flanneld.ts'

export type RoutingBackend = 'host-gw' | 'vxlan, direct'

const NETWORK = '10.10.0.0/16'
const MTU: Readonly<Record<RoutingBackend, number>> = { 'host-gw': 1500, 'vxlan, direct': 1450 }

/** The network config. */
export function configOf(backend: RoutingBackend): string {
  const Backend = backend === 'vxlan, direct' ? { Type: 'vxlan', DirectRouting: true } : { Type: backend }
  return JSON.stringify({ Network: NETWORK, Backend })
}

/** The registry's entry of such a host: key and value. */
export function leaseOf(host: LabHost, backend: RoutingBackend): [string, string] {
  const { publicIp, subnet } = host
  const rest =
    backend === 'vxlan, direct'
      ? `"vxlan","BackendData":{"VNI":1,"VtepMAC":"${peerOf(host).mac}"}`
      : `"${backend}"`
  return [subnet.replace('/', '-'), `{"PublicIP":"${publicIp}","PublicIPv6":null,"BackendType":${rest}}`]
}

/** All hosts are on one link. A start over a state that is there adopts it. */
export async function startRouting(
  host: LabHost,
  backend: RoutingBackend,
  peers: readonly LabHost[],
): Promise<void> {
  const { namespace, publicIp, subnet } = host
  const links = await ip(namespace, '-o link show')
  if (backend === 'vxlan, direct' && !links.includes('flannel.1')) {
    const vxlan = `type vxlan id 1 local ${publicIp} dev eth0 dstport 8472 nolearning`
    await ip(namespace, `link add flannel.1 address ${peerOf(host).mac} mtu 1450 txqueuelen 0 ${vxlan}`)
    await ip(namespace, `address add ${prefixBase(subnet)}/32 dev flannel.1`)
    await ip(namespace, 'link set flannel.1 up')
  }
  for (const peer of peers) await ip(namespace, `route replace ${peer.subnet} via ${peer.publicIp} dev eth0`)
  const { gateway } = containerAddresses(subnet)
  await writeFile(
    host.subnetFile,
    `FLANNEL_NETWORK=${NETWORK}\nFLANNEL_SUBNET=${gateway}/24\nFLANNEL_MTU=${MTU[backend]}\nFLANNEL_IPMASQ=false\n`,
  )
}

/** Whether nothing of a tunnel leads to the peer. */
export async function isWithoutTunnel({ namespace }: LabHost, peer: LabHost): Promise<boolean> {
  const fdb = await bridge(namespace, 'fdb show')
  const route = await ip(namespace, `route show ${peer.subnet}`)
  return !fdb.includes(peer.publicIp) && route.startsWith(`${peer.subnet} via ${peer.publicIp} dev eth0`)
}
