import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { startTweed, tweed } from './tweed.ts'

const CONFIG = '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}'

let directory: string
let registry: string

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tweed-cli-'))
  registry = `--registry=sqlite:${join(directory, 'registry.db')}`
})

after(() => rm(directory, { recursive: true }))

test('a config is put and got as it was written', async () => {
  const file = join(directory, 'config.json')
  await writeFile(file, CONFIG)
  assert.deepEqual(await tweed('config', 'put', registry, file), { code: 0, stdout: '', stderr: '' })
  assert.deepEqual(await tweed('config', 'get', registry), { code: 0, stdout: `${CONFIG}\n`, stderr: '' })
})

test('a config that cannot be used is refused with the field, its value and what is allowed', async () => {
  const before = await tweed('config', 'get', registry)
  const bad = CONFIG.replace('"vxlan"', '"vxlan", "VNI": 16777216')
  for (const args of [
    ['check', '-'],
    ['put', registry, '-'],
  ]) {
    const { code, stderr } = await startTweed(['config', ...args], bad).outcome
    assert.equal(code, 1)
    assert.match(stderr, /^tweed: Backend\.VNI is 16777216: .* 1 to 16777215\n$/)
  }
  assert.deepEqual(await tweed('config', 'get', registry), before)
  assert.equal((await startTweed(['config', 'check', '-'], CONFIG).outcome).code, 0)
})

test('a subnet is reserved, listed and released', async () => {
  assert.equal((await tweed('leases', 'reserve', registry, '10.10.10.0/24', '192.168.1.10')).code, 0)
  const table = (await tweed('leases', registry)).stdout
  assert.match(
    table,
    /^SUBNET +PUBLIC IP +BACKEND +EXPIRES +DATA\n10\.10\.10\.0\/24 +192\.168\.1\.10 +- +never +-\n$/,
  )
  assert.deepEqual(JSON.parse((await tweed('leases', 'list', '--json', registry)).stdout), [
    {
      subnets: { inet: '10.10.10.0/24' },
      publicIps: { inet: '192.168.1.10' },
      backendType: '',
      backendData: {},
      expires: null,
    },
  ])

  const overlapping = await tweed('leases', 'reserve', registry, '10.10.0.0/17', '192.168.1.11')
  assert.equal(overlapping.code, 1)
  assert.match(overlapping.stderr, /^tweed: .*10\.10\.10\.0/)

  assert.equal((await tweed('leases', 'release', registry, '10.10.10.0/24')).code, 0)
  assert.equal((await tweed('leases', 'release', registry, '10.10.10.0/24')).code, 1)
  assert.equal((await tweed('leases', 'list', '--json', registry)).stdout, '[]\n')
})

test('subnets of both families are one reservation', async () => {
  const subnets = '10.10.10.0/24,fd00:10:10:10::/64'
  const reserve = (...args: string[]) => tweed('leases', 'reserve', registry, ...args)
  assert.equal((await reserve(subnets, 'fd00:192::10,192.168.1.10')).code, 0)
  assert.match(
    (await tweed('leases', registry)).stdout,
    /^10\.10\.10\.0\/24 fd00:10:10:10::\/64 +192\.168\.1\.10 fd00:192::10 +- +never +-$/m,
  )
  const one = await reserve('10.10.11.0/24,fd00:10:10:11::/64', '192.168.1.11')
  assert.equal(one.code, 2)
  assert.equal(
    one.stderr,
    'tweed: 10.10.11.0/24 and fd00:10:10:11::/64 cannot be reserved for 192.168.1.11\n',
  )
  const same = await reserve('10.10.11.0/24,10.10.12.0/24', '192.168.1.11')
  assert.equal(same.code, 2)
  assert.match(same.stderr, /10\.10\.11\.0\/24,10\.10\.12\.0\/24 has two of the same address family/)
  assert.equal((await tweed('leases', 'release', registry, 'fd00:10:10:10::/64')).code, 0)
  assert.equal((await tweed('leases', 'list', '--json', registry)).stdout, '[]\n')
})

test('a registry that does not exist is said in one line', async () => {
  for (const args of [['config', 'get'], ['leases']]) {
    const { code, stderr } = await tweed(...args, `--registry=sqlite:${join(directory, 'none.db')}`)
    assert.equal(code, 1)
    assert.match(stderr, /^tweed: .*none\.db.*\n$/)
  }
})

test('where no agent answers, status says so in one line', async () => {
  const { code, stdout, stderr } = await tweed('status', '--subnet-file', join(directory, 'subnet.env'))
  assert.deepEqual([code, stdout], [1, ''])
  assert.match(stderr, /^tweed: no agent answers on .*\/subnet\.sock: it does not run\n$/)
})

test('a command line that cannot be understood ends with 2 and changes nothing', async () => {
  for (const args of [
    [],
    ['bogus'],
    ['config'],
    ['config', 'put'],
    ['leases', '--registry', 'etcd:/x'],
    ['leases', 'reserve', registry, '10.10.10.0', '192.168.1.10'],
    ['leases', 'reserve', registry, '10.10.10.0/24', '192.168.1.256'],
    ['lab', 'up', '--hosts', '27'],
    ['status', '--nonsense'],
  ]) {
    const { code, stdout, stderr } = await tweed(...args)
    assert.deepEqual([code, stdout], [2, ''], args.join(' '))
    assert.notEqual(stderr, '')
  }
})

test('the flags of the agent are its own: Go-style, passed through untouched', async () => {
  const { code, stderr } = await tweed('agent', '-iface=eth0', '-nonsense=x', '--help')
  assert.equal(code, 2)
  assert.match(stderr, /nonsense/)
  assert.doesNotMatch(stderr, /iface=eth0/)
})

test('help names every command', async () => {
  const { code, stdout } = await tweed('--help')
  assert.equal(code, 0)
  for (const name of ['agent', 'status', 'config', 'leases', 'lab', 'demo']) {
    assert.match(stdout, new RegExp(`^  ${name} `, 'm'))
  }
})
