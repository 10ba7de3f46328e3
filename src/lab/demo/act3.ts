/** Act 3: the default. Everything is known beforehand, nothing is asked. */

import type { ChildProcess } from 'node:child_process'
import { prefixBase } from '../../address/prefix.ts'
import { hostStatus, stopAgent } from '../agent.ts'
import { putConfig } from '../registry.ts'
import { Watch } from '../watch.ts'
import { containerIp, linkMac, milliseconds, pingOnce, type Stage, startBoth } from './stage.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1}}'

export async function overlayWithoutMisses(
  stage: Stage,
  before: readonly ChildProcess[],
): Promise<ChildProcess[]> {
  const { lab, hostA, hostB, narrator, program } = stage
  narrator.act('Act 3: the overlay without misses')
  narrator.say(
    'The same without L3Miss, which is the default: no packet waits for an agent. The agents are stopped\n' +
      '(SIGTERM: what they made stays), the config is changed, and they start again.',
  )
  for (const agent of before) await stopAgent(agent)
  const { replies } = await pingOnce(stage, hostA.container, containerIp(hostB))
  narrator.check('c1 reaches c2 while no agent runs: what was answered stays', replies.length === 1)
  await putConfig(lab, CONFIG, program)
  narrator.lines([CONFIG])
  const agents = await startBoth(stage)
  await showEntries(stage)
  await showNoMiss(stage)
  return agents
}

async function showEntries({ hostA, hostB, narrator }: Stage): Promise<void> {
  narrator.say('Three entries for each remote subnet, all made before the first packet:')
  const mac = await linkMac(hostB, 'flannel.1')
  const gateway = prefixBase(hostB.subnet)

  const routes = await narrator.table(hostA, 'ip route show dev flannel.1')
  const [route = ''] = routes
  narrator.check(
    `a route: ${hostB.subnet} through ${gateway}, and no other`,
    routes.length === 1 && route.startsWith(`${hostB.subnet} `) && route.includes(` via ${gateway} `),
    routes.join('; '),
  )
  const neighbours = await narrator.table(hostA, 'ip -4 neigh show dev flannel.1')
  narrator.check(
    `a neighbour: ${gateway} is ${mac}, and of Act 2's neighbours none is left`,
    neighbours.length === 1 && (neighbours[0] ?? '').startsWith(`${gateway} lladdr ${mac} PERMANENT`),
    neighbours.join('; '),
  )
  const fdb = await narrator.table(hostA, 'bridge fdb show dev flannel.1')
  narrator.check(
    `an FDB entry: ${mac} is behind ${hostB.publicIp}`,
    fdb.length === 1 && (fdb[0] ?? '').startsWith(`${mac} dst ${hostB.publicIp} `),
    fdb.join('; '),
  )
}

async function showNoMiss(stage: Stage): Promise<void> {
  const { hostA, hostB, narrator } = stage
  const target = containerIp(hostB)
  const watch = new Watch(hostA.path)
  try {
    narrator.say(`c1 pings c2, ${target}.`)
    const [reply] = (await pingOnce(stage, hostA.container, target)).replies
    narrator.check(
      `${target} answers the first packet after ${milliseconds(reply?.time ?? 0)}`,
      reply !== undefined,
    )
    const misses = watch.news.filter(({ verb }) => verb === 'get')
    narrator.check('the kernel asked nobody: no miss', misses.length === 0, `${misses.length} misses`)
  } finally {
    await watch.close()
  }
  const { counters } = await hostStatus(hostA)
  const asked = counters.missesAnswered + counters.missesRefused
  narrator.check('and the agent of host-A heard of none', asked === 0, `${asked} misses`)
}
