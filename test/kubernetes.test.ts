/** What tests of the Kubernetes registry rest on: a real API server, its nodes, and what `flannel` may do there. */

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { run } from '../src/lab/command.ts'
import { Overlay } from './e2e/overlay.ts'
import { type Answer, Kubernetes, type NodeObject } from './kubernetes.ts'

const STRATEGIC = 'application/strategic-merge-patch+json'
const NODES = '/api/v1/nodes'

interface NodeList {
  readonly metadata: { readonly resourceVersion: string }
  readonly items: readonly NodeObject[]
}

const kubernetes = await Kubernetes.start({ after }, { dualStack: true })

test('nodes with podCIDRs of either family, and of both', async () => {
  const cases = { four: ['10.7.0.0/24'], six: ['fd00:7::/64'], both: ['10.7.1.0/24', 'fd00:7:0:1::/64'] }
  for (const [name, podCIDRs] of Object.entries(cases)) {
    await kubernetes.createNode(name, { podCIDRs })
    const { spec } = await kubernetes.node(name)
    assert.deepEqual([spec.podCIDR, spec.podCIDRs], [podCIDRs[0], podCIDRs])
    await kubernetes.deleteNode(name)
  }
})

test('indented JSON, in which maps are written in another way', async () => {
  const annotations = { a: '1', b: '2', c: '3' }
  const created = await kubernetes.createNode('a', { annotations })
  const { body } = await kubernetes.request<NodeObject>('GET', `${NODES}/a?pretty=true`)
  assert.deepEqual(body, created)
  await kubernetes.deleteNode('a')
})

test('a server that does not start says why, and leaves nothing behind', async (t) => {
  await assert.rejects(Kubernetes.start(t, { flags: ['--nonsense'] }), /unknown flag: --nonsense/)
})

test('flannel lists and watches nodes, annotates them through their status, and may do no more', async () => {
  await kubernetes.createNode('a', { podCIDRs: ['10.7.2.0/24'], annotations: { mine: 'yes' } })
  const user = 'flannel'
  const { body: list } = await kubernetes.request<NodeList>('GET', NODES, undefined, { user })
  assert.deepEqual(
    list.items.map(({ metadata }) => metadata.name),
    ['a'],
  )
  const patch = { metadata: { annotations: { 'flannel.alpha.coreos.com/backend-type': 'vxlan' } } }
  const patched = await kubernetes.request<NodeObject>('PATCH', `${NODES}/a/status`, patch, {
    user,
    contentType: STRATEGIC,
  })
  assert.equal(patched.status, 200)
  assert.deepEqual(patched.body.metadata.annotations, { mine: 'yes', ...patch.metadata.annotations })
  const [event, ...more] = await kubernetes.watchNodes(list.metadata.resourceVersion, user)
  assert.deepEqual([event?.type, event?.object.metadata, more], ['MODIFIED', patched.body.metadata, []])

  const refused: Answer<unknown>[] = [
    await kubernetes.request('PATCH', `${NODES}/a`, patch, { user, contentType: STRATEGIC }),
    await kubernetes.request('POST', NODES, { metadata: { name: 'b' } }, { user }),
    await kubernetes.request('DELETE', `${NODES}/a`, undefined, { user }),
    await kubernetes.request('GET', '/api/v1/pods', undefined, { user }),
  ]
  assert.deepEqual(
    refused.map(({ status }) => status),
    [403, 403, 403, 403],
  )
  await kubernetes.deleteNode('a')
})

test('a server that was killed and started again has its data', async () => {
  const created = await kubernetes.createNode('a', { podCIDRs: ['10.7.3.0/24'] })
  await kubernetes.stop()
  await assert.rejects(kubernetes.node('a'), { code: 'ECONNREFUSED' })
  await kubernetes.start()
  assert.deepEqual(await kubernetes.node('a'), created)
  const patched = await kubernetes.patchNode('a', { metadata: { annotations: { mine: 'yes' } } })
  assert.deepEqual(patched.metadata.annotations, { mine: 'yes' })
})

test('the hosts of a lab reach it on the underlay, and so does the test', async (t) => {
  await using overlay = await Overlay.build(1, undefined, 'sqlite', 'inet6')
  const inLab = await Kubernetes.start(t, { lab: overlay.lab })
  await inLab.createNode('a')
  const program = `fetch(process.argv[1], { headers: { authorization: 'Bearer ' + process.argv[2] } })
    .then((answer) => answer.text()).then(console.log)`
  const words = ['--eval', program, `${inLab.url}${NODES}/a`, inLab.token('flannel')]
  const inside = [`--net=${overlay.host(0).path}`, 'env', `NODE_EXTRA_CA_CERTS=${inLab.ca}`, process.execPath]
  const answer = await run('nsenter', [...inside, ...words])
  assert.deepEqual(JSON.parse(answer), await inLab.node('a'))
})
