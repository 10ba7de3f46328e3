/** The registry in Kubernetes, on a real API server, as a user who may do what flannel's manifest allows and no more. */

import assert from 'node:assert/strict'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { parseIp } from '../src/address/ip.ts'
import { parseRegistryAddress } from '../src/lease/registry.ts'
import { Kubernetes } from './kubernetes.ts'
import { acquire, annotationsOf, attributesOf, CONFIG, KubernetesNetwork } from './kubernetes-network.ts'
import { snapshotWhere } from './registry-contract.ts'
import { tweed } from './tweed.ts'

const kubernetes = await Kubernetes.start({ after }, { dualStack: true })

const DUAL = '{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:244::/48"}'
const SIX = '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:244::/48"}'

test('a lease is the podCIDR, and annotations to the byte; written once', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const node = await network.create('a', { podCIDRs: ['10.244.1.0/24'], annotations: { mine: 'yes' } })
  const registry = await network.connect('a')
  assert.equal(await registry.readConfig(), CONFIG)
  const lease = await acquire(registry, attributesOf(10), t.signal)
  assert.deepEqual(lease, {
    ...attributesOf(10),
    key: '10.244.1.0-24',
    subnets: { inet: '10.244.1.0/24' },
    expires: undefined,
    created: lease.created,
    node: node.metadata.name,
  })
  assert.deepEqual(await network.annotations('a'), {
    mine: 'yes',
    'kube-subnet-manager': 'true',
    'backend-type': 'vxlan',
    'backend-data': '{"VNI":1,"VtepMAC":"02:00:00:00:00:0a"}',
    'public-ip': '192.168.1.10',
  })
  const { resourceVersion } = (await network.node('a')).metadata
  network.calls.length = 0
  assert.deepEqual(await acquire(registry, attributesOf(10), t.signal), lease)
  assert.deepEqual(network.calls, ['get'])
  assert.equal((await network.node('a')).metadata.resourceVersion, resourceVersion)
  await acquire(registry, { ...attributesOf(10), publicIps: { inet: parseIp('192.168.1.77') } }, t.signal)
  assert.equal((await network.annotations('a'))['public-ip'], '192.168.1.77')
})

test('IPv6 alone, and both families', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const publicIps = { inet: parseIp('192.168.1.10'), inet6: parseIp('fd00:192::10') }
  const data = { VNI: 1, VtepMAC: '02:00:00:00:06:0a' }
  await network.create('six', { podCIDRs: ['fd00:244:0:1::/64'] })
  const six = { publicIps: { inet6: publicIps.inet6 }, backendType: 'vxlan', backendData: { inet6: data } }
  const alone = await acquire(await network.connect('six'), six, t.signal, SIX)
  assert.deepEqual(
    [alone.key, alone.subnets],
    ['0.0.0.0-0&fd00:244:0:1::-64', { inet6: 'fd00:244:0:1::/64' }],
  )
  assert.deepEqual(await network.annotations('six'), {
    'kube-subnet-manager': 'true',
    'backend-type': 'vxlan',
    'backend-v6-data': '{"VNI":1,"VtepMAC":"02:00:00:00:06:0a"}',
    'public-ipv6': 'fd00:192::10',
  })
  await network.create('dual', { podCIDRs: ['10.244.2.0/24', 'fd00:244:0:2::/64'] })
  const registry = await network.connect('dual')
  const hostGw = { publicIps, backendType: 'host-gw', backendData: {} }
  const both = await acquire(registry, hostGw, t.signal, DUAL)
  assert.equal(both.key, '10.244.2.0-24&fd00:244:0:2::-64')
  assert.deepEqual(await network.annotations('dual'), {
    'kube-subnet-manager': 'true',
    'backend-type': 'host-gw',
    'backend-data': 'null',
    'backend-v6-data': 'null',
    'public-ip': '192.168.1.10',
    'public-ipv6': 'fd00:192::10',
  })
  const events = registry.watch(t.signal)
  const { leases } = await snapshotWhere(events, () => true)
  assert.deepEqual(leases.get(both.key), both)
  assert.deepEqual(leases.get(alone.key), alone)
  // The network has one family less: the name of the lease stays that of the node's podCIDRs.
  const attributes = { ...hostGw, publicIps: { inet: publicIps.inet } }
  const one = await acquire(registry, attributes, t.signal)
  assert.deepEqual([one.key, one.subnets], [both.key, { inet: '10.244.2.0/24' }])
  assert.equal((await network.annotations('dual'))['public-ipv6'], undefined)
})

test('a node that is not there, or has no podCIDR yet, is waited for', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const registry = await network.connect('a')
  const name = network.nameOf('a')
  await assert.rejects(acquire(registry, attributesOf(10), t.signal), {
    code: 'unavailable',
    message: `${kubernetes.url}: nodes "${name}" not found`,
  })
  await network.create('a')
  await assert.rejects(acquire(registry, attributesOf(10), t.signal), {
    code: 'unavailable',
    message: `node "${name}" pod cidr not assigned`,
  })
  await kubernetes.patchNode(name, { spec: { podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24'] } })
  assert.equal((await acquire(registry, attributesOf(10), t.signal)).key, '10.244.1.0-24')
})

test('a podCIDR outside of the network, or of another family, is an answer', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.7.1.0/24', 'fd00:7::/64'] })
  const registry = await network.connect('a')
  const name = network.nameOf('a')
  const contains = (subnet: string, cidr: string) =>
    `subnet "${subnet}" specified in the flannel net config doesn't contain ${cidr} of the "${name}" node`
  await assert.rejects(acquire(registry, attributesOf(10), t.signal), {
    code: 'invalid',
    message: contains('10.244.0.0/16', '"10.7.1.0/24" PodCIDR'),
  })
  await assert.rejects(acquire(registry, attributesOf(10), t.signal, SIX), {
    code: 'invalid',
    message: contains('fd00:244::/48', '"fd00:7::/64" IPv6 PodCIDR'),
  })
  assert.deepEqual(await network.annotations('a'), {})
  await network.create('b', { podCIDRs: ['10.244.1.0/24'] })
  await assert.rejects(acquire(await network.connect('b'), attributesOf(10), t.signal, DUAL), {
    code: 'invalid',
    message: `node "${network.nameOf('b')}" has no IPv6 PodCIDR`,
  })
})

test('the node is that of NODE_NAME, else that of our pod', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.244.1.0/24'] })
  const pod = { metadata: { name: 'flannel-x' }, spec: { containers: [{ name: 'c', image: 'i' }] } }
  const path = '/api/v1/namespaces/default/pods'
  const variables = { POD_NAMESPACE: 'default', POD_NAME: 'flannel-x' }
  const registry = await network.connect('a', { variables })
  const acquiring = () => acquire(registry, attributesOf(10), t.signal)
  await assert.rejects(acquiring(), {
    code: 'unavailable',
    message: /^error retrieving pod spec for 'default\/flannel-x': .*pods "flannel-x" not found$/,
  })
  await kubernetes.request('POST', path, pod)
  t.after(() => kubernetes.request('DELETE', `${path}/flannel-x?gracePeriodSeconds=0`))
  await assert.rejects(acquiring(), {
    code: 'unavailable',
    message: "node name not present in pod spec 'default/flannel-x'",
  })
  const target = { apiVersion: 'v1', kind: 'Node', name: network.nameOf('a') }
  await kubernetes.request('POST', `${path}/flannel-x/binding`, { metadata: pod.metadata, target })
  assert.equal((await acquiring()).node, network.nameOf('a'))
  const nobody = await network.connect('a', { variables: { POD_NAME: 'flannel-x' } })
  await assert.rejects(acquire(nobody, attributesOf(10), t.signal), {
    code: 'invalid',
    message: 'env variables POD_NAME and POD_NAMESPACE must be set',
  })
})

test('watch: complete at first, then what changed, and nothing for what does not count', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.244.1.0/24'], annotations: annotationsOf(10) })
  await network.create('stranger', { podCIDRs: ['10.244.9.0/24'] })
  const events = (await network.connect('a')).watch(t.signal)
  const first = await snapshotWhere(events, () => true)
  assert.deepEqual(
    [[...first.leases.keys()], first.changed, first.config],
    [['10.244.1.0-24'], undefined, CONFIG],
  )

  await network.create('b', { podCIDRs: ['10.244.2.0/24'], annotations: annotationsOf(11) })
  const added = await snapshotWhere(events, () => true)
  assert.deepEqual(added.changed, new Set(['10.244.2.0-24']))
  assert.equal(
    [...added.leases.values()].find(({ node }) => node === network.nameOf('b'))?.publicIps.inet,
    '192.168.1.11',
  )

  // Labels, conditions and other people's annotations change all the time.
  await kubernetes.patchNode(network.nameOf('b'), {
    metadata: { labels: { a: 'b' }, annotations: { c: 'd' } },
  })
  await network.annotate('a', { 'node-public-ip': '192.168.1.99' })
  await network.annotate('b', { 'public-ip': '192.168.1.12' })
  const changed = await snapshotWhere(events, () => true)
  assert.deepEqual(changed.changed, new Set(['10.244.2.0-24']))
  assert.equal(
    [...changed.leases.values()].find(({ node }) => node === network.nameOf('b'))?.publicIps.inet,
    '192.168.1.12',
  )

  await network.delete('a')
  const gone = await snapshotWhere(events, () => true)
  assert.deepEqual([...gone.gone.keys()], ['10.244.1.0-24'])
  assert.deepEqual([...gone.leases.keys()], ['10.244.2.0-24'])
  await network.annotate('b', { 'kube-subnet-manager': 'false' })
  assert.equal((await snapshotWhere(events, () => true)).leases.size, 0)
})

test('the config is a file, and what is written to it is seen', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const registry = await network.connect('a')
  const events = registry.watch(t.signal)
  await snapshotWhere(events, ({ config }) => config === CONFIG)
  network.writeConfig(DUAL)
  const { changed } = await snapshotWhere(events, ({ config }) => config === DUAL)
  assert.deepEqual(changed, new Set())
  const nowhere = await network.connect('a', { netConfig: '/nowhere/net-conf.json' })
  await assert.rejects(nowhere.readConfig(), {
    code: 'unavailable',
    message: /^failed to read net conf: ENOENT.*\/nowhere\/net-conf\.json/,
  })
  assert.equal((await snapshotWhere(nowhere.watch(t.signal), () => true)).config, undefined)
})

test('hostile nodes are refused, each with its reason, and disturb nobody', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const events = (await network.connect('a')).watch(t.signal)
  await network.create('good', { podCIDRs: ['10.244.1.0/24'], annotations: annotationsOf(10) })
  const brackets = `${'['.repeat(9000)}${']'.repeat(9000)}`
  for (const [name, annotations, podCIDRs] of [
    ['ip', { 'public-ip': '999.1.1.1' }, ['10.244.2.0/24']],
    ['json', { 'backend-data': '{"VNI":1' }, ['10.244.3.0/24']],
    ['deep', { 'backend-data': brackets }, ['10.244.4.0/24']],
    ['bare', {}, []],
    [
      'huge',
      { 'backend-data': `"${'x'.repeat(200_000)}"`, 'public-ip': 'x'.repeat(50_000) },
      ['10.244.5.0/24'],
    ],
  ] as const) {
    await network.create(name, { podCIDRs, annotations: { ...annotationsOf(20), ...annotations } })
  }
  const { leases, malformed } = await snapshotWhere(events, (snapshot) => snapshot.malformed.size === 5)
  assert.deepEqual([...leases.keys()], ['10.244.1.0-24'])
  const why = (name: string) => malformed.get(network.nameOf(name)) ?? ''
  assert.equal(why('ip'), 'public-ip is "999.1.1.1", not an IPv4 address')
  assert.match(why('json'), /^backend-data is not JSON/)
  assert.equal(why('deep'), 'backend-data has more than 1000 brackets')
  assert.equal(why('bare'), `node "${network.nameOf('bare')}" pod cidr not assigned`)
  assert.match(why('huge'), /^public-ip is "x+", not an IPv4 address$/)
  await network.annotate('ip', { 'public-ip': '192.168.1.20' })
  const mended = await snapshotWhere(events, (snapshot) => snapshot.malformed.size === 4)
  assert.deepEqual(mended.changed, new Set(['10.244.2.0-24']))
})

test('two nodes with one podCIDR: the older holds, the other is named', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const events = (await network.connect('a')).watch(t.signal)
  // The time of creation counts in seconds: as old as each other, the name decides.
  for (const [name, last] of [
    ['b', 12],
    ['a', 11],
  ] as const) {
    await network.create(name, { podCIDRs: ['10.244.1.0/24'], annotations: annotationsOf(last) })
  }
  const late = (await network.connect('a')).watch(t.signal)
  for (const each of [events, late]) {
    const { leases, malformed } = await snapshotWhere(each, (snapshot) => snapshot.malformed.size === 1)
    const [holder] = [...leases.values()]
    const [[loser, why] = []] = [...malformed]
    assert.equal(leases.size, 1)
    assert.equal(why, `the older node ${holder?.node} has its subnet 10.244.1.0/24`)
    assert.deepEqual(new Set([holder?.node, loser]), new Set([network.nameOf('a'), network.nameOf('b')]))
  }
  const { leases } = await snapshotWhere((await network.connect('a')).watch(t.signal), () => true)
  const holder = [...leases.values()][0]?.node === network.nameOf('a') ? 'a' : 'b'
  await network.delete(holder)
  const freed = await snapshotWhere(events, (snapshot) => snapshot.malformed.size === 0)
  assert.deepEqual(freed.changed, new Set(['10.244.1.0-24']))
  assert.equal([...freed.leases.values()][0]?.node, network.nameOf(holder === 'a' ? 'b' : 'a'))
})

test("an operator's public IPs: published as they stand, or asked of the agent", async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const annotations = {
    'public-ip-overwrite': '172.18.0.2',
    'node-public-ipv6': 'FD00::5',
    'node-public-ip': '',
  }
  await network.create('a', { podCIDRs: ['10.244.1.0/24'], annotations })
  const registry = await network.connect('a')
  assert.deepEqual(await registry.publicIps(t.signal), { inet6: 'fd00::5' })
  const lease = await acquire(registry, attributesOf(10), t.signal)
  assert.deepEqual(lease.publicIps, { inet: '192.168.1.10' })
  assert.equal((await network.annotations('a'))['public-ip'], '172.18.0.2')
  await network.annotate('a', { 'node-public-ip': 'eth0' })
  await assert.rejects(registry.publicIps(t.signal), {
    code: 'unavailable',
    message: `node "${network.nameOf('a')}": its annotation ${network.prefix}node-public-ip is "eth0", not an IPv4 address`,
  })
})

test('hold: what somebody takes away or changes is put back, and nothing else is touched', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.244.1.0/24'], annotations: { mine: 'yes' } })
  const registry = await network.connect('a')
  const lease = await acquire(registry, attributesOf(10), t.signal)
  const before = await network.annotations('a')
  const stop = new AbortController()
  const held = registry.hold(lease, stop.signal)
  const events = (await network.connect('a')).watch(t.signal)
  await snapshotWhere(events, ({ leases }) => leases.size === 1)
  await network.annotate('a', {
    'kube-subnet-manager': null,
    'backend-data': 'x',
    'public-ip': '192.168.1.66',
  })
  await snapshotWhere(events, ({ leases }) => leases.size === 0)
  const { leases } = await snapshotWhere(events, (snapshot) => snapshot.leases.size === 1)
  assert.deepEqual(leases.get(lease.key)?.publicIps, lease.publicIps)
  assert.deepEqual(await network.annotations('a'), before)
  // Another overwrite is taken up.
  await network.annotate('a', { 'public-ip-overwrite': '172.18.0.2' })
  await snapshotWhere(events, (snapshot) => snapshot.leases.get(lease.key)?.publicIps.inet === '172.18.0.2')
  stop.abort()
  assert.equal(await held, 'released')
})

test('hold: a node that is deleted, or made again with another podCIDR, is lost', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.244.1.0/24'] })
  const registry = await network.connect('a')
  const lease = await acquire(registry, attributesOf(10), t.signal)
  const held = registry.hold(lease, t.signal)
  await network.delete('a')
  assert.equal(await held, 'lost')
  assert.equal(await registry.hold(lease, t.signal), 'lost')
  await network.create('a', { podCIDRs: ['10.244.2.0/24'] })
  assert.equal(await registry.hold(lease, t.signal), 'lost')
  const again = await acquire(registry, attributesOf(10), t.signal)
  assert.equal(again.key, '10.244.2.0-24')
  const stop = new AbortController()
  const heldAgain = registry.hold(again, stop.signal)
  stop.abort()
  assert.equal(await heldAgain, 'released')
})

/** The condition NetworkUnavailable, and the version of the node. */
async function conditionOf(network: KubernetesNetwork, node: string) {
  interface WithStatus {
    readonly metadata: { readonly resourceVersion: string }
    readonly status: { readonly conditions?: readonly { readonly type: string }[] }
  }
  const { body } = await kubernetes.request<WithStatus>('GET', `/api/v1/nodes/${network.nameOf(node)}`)
  const condition = body.status.conditions?.find(({ type }) => type === 'NetworkUnavailable')
  return { condition, version: body.metadata.resourceVersion }
}

test('Kubernetes is told of the network once it is there, once, and only if that is wanted', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.244.1.0/24'] })
  const holding = async (programmed: Promise<boolean>, setNetworkUnavailable = true) => {
    const registry = await network.connect('a', { setNetworkUnavailable })
    const lease = await acquire(registry, attributesOf(10), t.signal)
    const stop = new AbortController()
    const held = registry.hold(lease, stop.signal, programmed)
    return async () => {
      stop.abort()
      assert.equal(await held, 'released')
    }
  }
  /** Until the node is as it is after a change that the holder mends. */
  const mended = async () => {
    await network.annotate('a', { 'backend-type': 'x' })
    while ((await network.annotations('a'))['backend-type'] !== 'vxlan') t.signal.throwIfAborted()
  }
  for (const end of [
    await holding(Promise.resolve(true), false),
    await holding(Promise.resolve(false)),
    await holding(Promise.withResolvers<boolean>().promise),
  ]) {
    await mended()
    assert.equal((await conditionOf(network, 'a')).condition, undefined)
    await end()
  }
  const end = await holding(Promise.resolve(true))
  let told = await conditionOf(network, 'a')
  while (told.condition === undefined) told = await conditionOf(network, 'a')
  assert.partialDeepStrictEqual(told.condition, {
    status: 'False',
    reason: 'FlannelIsUp',
    message: 'Flannel is running on this node',
  })
  await end()
  network.calls.length = 0
  const endAgain = await holding(Promise.resolve(true))
  await mended()
  await endAgain()
  assert.deepEqual((await conditionOf(network, 'a')).condition, told.condition)
  assert.equal(network.calls.filter((call) => call === 'patch').length, 1)
})

test('many nodes come in pages', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  const numbers = Array.from({ length: 1100 }, (_, i) => i)
  const workers = Array.from({ length: 16 }, async () => {
    for (let n = numbers.pop(); n !== undefined; n = numbers.pop()) {
      const podCIDRs = [`10.244.${n >> 3}.${(n & 7) * 32}/27`]
      await network.create(`${n}`, { podCIDRs, annotations: annotationsOf(n & 127) })
    }
  })
  await Promise.all(workers)
  network.calls.length = 0
  const { leases } = await snapshotWhere((await network.connect('0')).watch(t.signal), () => true)
  assert.equal(leases.size, 1100)
  assert.deepEqual(network.calls, ['list', 'list', 'list'])
})

test('tokens and certificates: in a pod and in a kubeconfig, read again when they change', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.244.1.0/24'] })
  const folder = dirname(network.configPath)
  const { hostname, port } = new URL(kubernetes.url)
  const variables = {
    KUBERNETES_SERVICE_HOST: hostname,
    KUBERNETES_SERVICE_PORT: port,
    NODE_NAME: network.nameOf('a'),
  }
  const inPod = await network.connect('a', { kubeconfig: '', serviceAccount: folder, variables })
  const acquiring = () => acquire(inPod, attributesOf(10), t.signal)
  await assert.rejects(acquiring(), { code: 'unavailable', message: /ENOENT.*token/ })
  writeFileSync(join(folder, 'token'), 'outdated')
  writeFileSync(join(folder, 'ca.crt'), '')
  await assert.rejects(acquiring(), { code: 'unavailable' })
  copyFileSync(kubernetes.ca, join(folder, 'ca.crt'))
  await assert.rejects(acquiring(), { code: 'unavailable', message: `${kubernetes.url}: Unauthorized` })
  for (const junk of ['a\nb', '\u0100']) {
    writeFileSync(join(folder, 'token'), junk)
    await assert.rejects(acquiring(), { code: 'unavailable', message: /Invalid character in header/ })
  }
  writeFileSync(join(folder, 'token'), `${kubernetes.token('flannel')}\n`)
  assert.equal((await acquiring()).key, '10.244.1.0-24')

  const kubeconfig = await kubernetes.kubeconfig('flannel', 'certificate')
  assert.equal(
    (await acquire(await network.connect('a', { kubeconfig }), attributesOf(10), t.signal)).key,
    '10.244.1.0-24',
  )
  // As while it is being renewed.
  const damaged = join(folder, 'kubeconfig')
  const text = readFileSync(kubeconfig, 'utf8')
  writeFileSync(damaged, text.replace(/client-key: .*/, `client-key-data: ${btoa('no key')}`))
  const refused = await network.connect('a', { kubeconfig: damaged })
  await assert.rejects(acquire(refused, attributesOf(10), t.signal), { code: 'unavailable' })
  const nobody = await network.connect('a', { kubeconfig: '', apiUrl: kubernetes.url })
  await assert.rejects(acquire(nobody, attributesOf(10), t.signal), {
    code: 'unavailable',
    message: /certificate/,
  })
})

test('tweed leases shows who has what; tweed config what is in the file', async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.244.1.0/24'], annotations: annotationsOf(10) })
  await network.create('b', { podCIDRs: ['10.244.2.0/24'], annotations: { 'kube-subnet-manager': 'true' } })
  const flags = [
    '--registry=kubernetes:',
    `--kubeconfig-file=${await kubernetes.kubeconfig('flannel')}`,
    `--kube-annotation-prefix=${network.prefix}`,
    `--net-config-path=${network.configPath}`,
  ]
  const { code, stdout, stderr } = await tweed('leases', ...flags)
  assert.equal(code, 0, stderr)
  assert.match(stdout, /^10\.244\.1\.0\/24 +192\.168\.1\.10 +vxlan +never +\{"VNI":1,/m)
  assert.equal(stderr, `tweed: ${network.nameOf('b')} is no lease: public-ip is missing\n`)
  assert.equal((await tweed('config', 'get', ...flags)).stdout, `${CONFIG}\n`)
  const put = await tweed('config', 'put', network.configPath, ...flags)
  assert.deepEqual([put.code, put.stderr.split('\n').length], [2, 2], put.stderr)
})

test("flannel's default prefix, and what an operator may not do here", async (t) => {
  const network = await KubernetesNetwork.open(kubernetes, t)
  await network.create('a', { podCIDRs: ['10.244.1.0/24'] })
  const registry = await network.connect('a', { annotationPrefix: 'flannel.alpha.coreos.com' })
  await acquire(registry, attributesOf(10), t.signal)
  const { annotations } = (await network.node('a')).metadata
  assert.equal(annotations?.['flannel.alpha.coreos.com/public-ip'], '192.168.1.10')
  assert.equal(registry.name, `kubernetes:${kubernetes.url}`)
  await assert.rejects(registry.putConfig(), { code: 'invalid', message: /net-conf\.json: change it/ })
  await assert.rejects(registry.reserve(), { code: 'invalid' })
  await assert.rejects(registry.release(), { code: 'invalid' })
  assert.deepEqual(parseRegistryAddress('kubernetes:'), { kind: 'kubernetes' })
  await assert.rejects(network.connect('a', { annotationPrefix: 'a/b/c' }), {
    code: 'invalid',
    message: /at most single slash/,
  })
})
