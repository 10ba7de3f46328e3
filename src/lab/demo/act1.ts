/** Act 1: what the kernel does by itself, and what is not good about it. */

import type { Ip } from '../../address/ip.ts'
import { writeSysctl } from '../build.ts'
import { formatReply } from '../ping.ts'
import { linkMac, pingOnce, type Stage } from './stage.ts'

const ADDRESS_A = '10.10.10.1'
const ADDRESS_B = '10.10.11.1' as Ip
const GROUP = '239.1.1.1'

export async function linuxAlone(stage: Stage): Promise<void> {
  const { hostA, hostB, narrator } = stage
  narrator.act('Act 1: Linux VXLAN alone')
  narrator.say(
    'A vxlan link wraps Ethernet frames into UDP. Here is one on each host, VNI 42. What they do not know\n' +
      `they send to everybody, to the multicast group ${GROUP}, and they learn from what comes back.`,
  )
  for (const [host, address] of [
    [hostA, ADDRESS_A],
    [hostB, ADDRESS_B],
  ] as const) {
    const link = `ip link add vxlan0 type vxlan id 42 group ${GROUP} dev eth0 dstport 8472`
    await narrator.command(host, link)
    // Router solicitations of IPv6 would teach the hosts before the ping does.
    await writeSysctl(host, 'net/ipv6/conf/vxlan0/disable_ipv6', '1')
    await narrator.command(host, `ip address add ${address}/16 dev vxlan0`)
    await narrator.command(host, 'ip link set vxlan0 up')
  }
  narrator.say('Before any traffic, host-B knows nobody: all zeros, "everything else", goes to the group.')
  const before = await narrator.table(hostB, 'bridge fdb show dev vxlan0')
  narrator.check('host-B has learned nothing yet', before.every(isGroupEntry), before.join('; '))

  narrator.say(`Now host-A pings ${ADDRESS_B}.`)
  const { replies } = await pingOnce(stage, hostA, ADDRESS_B)
  narrator.lines(replies.map(formatReply))
  narrator.check(`${ADDRESS_B} answers`, replies.length === 1)
  const mac = await linkMac(hostA, 'vxlan0')
  const after = await narrator.table(hostB, 'bridge fdb show dev vxlan0')
  const learned = after.some((line) => line.startsWith(`${mac} dst ${hostA.publicIp} `))
  narrator.check(`host-B has learned ${mac}, host-A's vxlan0, behind ${hostA.publicIp}`, learned)
  narrator.check(`the all-zero entry sends the rest to ${GROUP}`, after.some(isGroupEntry))
  narrator.say(
    'It works, but it needs multicast between the hosts, which clouds and routers do not give; every unknown\n' +
      'address floods all hosts; what was learned is forgotten again; and somebody has to hand out the addresses.',
  )
  for (const host of [hostA, hostB]) await narrator.command(host, 'ip link delete vxlan0')
}

function isGroupEntry(line: string): boolean {
  return line.startsWith(`00:00:00:00:00:00 dst ${GROUP} `)
}
