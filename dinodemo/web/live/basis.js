// The colours' basis, fitted in the browser as tasks/pca/basis.py's PatchPCA.fit does, on the strongest axes of all
// patches instead of on their tokens: live.py chooses so many that no colour differs by more than a hundredth.
const WANTED = 8, BLOCK = 20, ROUNDS = 200, TOLERANCE = 1e-4;  // axes; of the subspace iteration
let basis = null, fitted = null;

function floats(text, Kind) { return new Kind(bytes(text).buffer); }

function unpack(rows, scales) {  // whole numbers, a scale a column -> values
  const made = new Float32Array(rows.length), count = scales.length;
  for (let at = 0, c = 0; at < made.length; at++) {
    made[at] = rows[at] * scales[c];
    if (++c === count) c = 0;
  }
  return made;
}

function openBasis(value) {
  const scales = Float32Array.from(value.scales), count = scales.length, first = floats(value.first, Float32Array);
  const axes = value.axes && Float32Array.from(floats(value.axes, Int16Array), (number) => number / 32767);
  basis = {
    ...value, count, first, axes, rows: unpack(floats(value.rows, Int16Array), scales),
    energy: value.energy && floats(value.energy, Float32Array), inside: new Uint8Array(first.length),
    members: 0, squares: 0, sum: new Float64Array(count), gram: new Float64Array(count * count), block: [],
  };
  for (let i = 0; i < Math.min(BLOCK, count); i++) {
    basis.block.push(new Float64Array(count));
    basis.block[i][i] = 1;
  }
}

function include(limit) {  // take exactly the patches above the limit into the sums
  const {count, rows, first, inside, sum, gram, energy} = basis;
  for (let p = 0; p < inside.length; p++) {
    const now = +(limit === null || first[p] > limit);
    if (now === inside[p]) continue;
    const sign = now ? 1 : -1, row = rows.subarray(p * count, (p + 1) * count);
    inside[p] = now;
    basis.members += sign;
    basis.squares += sign * energy[p];
    for (let i = 0; i < count; i++) {
      const value = sign * row[i], at = i * count;
      sum[i] += value;
      for (let j = i; j < count; j++) gram[at + j] += value * row[j];
    }
  }
}

function covariance() {
  const {count, members, sum, gram} = basis, made = new Float64Array(count * count);
  for (let i = 0; i < count; i++) for (let j = i; j < count; j++)
    made[i * count + j] = made[j * count + i] = (gram[i * count + j] - sum[i] * sum[j] / members) / (members - 1);
  return made;
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function add(to, factor, vector) { for (let i = 0; i < to.length; i++) to[i] += factor * vector[i]; }

function orthonormal(vectors) {  // Gram and Schmidt, twice: once leaves too much where vectors are nearly alike
  vectors.forEach((vector, i) => {
    for (let pass = 0; pass < 2; pass++) for (let j = 0; j < i; j++) add(vector, -dot(vector, vectors[j]), vectors[j]);
    const length = Math.sqrt(dot(vector, vector)) || 1;
    for (let k = 0; k < vector.length; k++) vector[k] /= length;
  });
}

function eigen(matrix) {  // of a small symmetric matrix, by Jacobi's rotations: [values, vectors], the largest first
  const n = matrix.length, turned = matrix.map((row) => Float64Array.from(row));
  const vectors = turned.map((row, i) => row.map((_, j) => +(i === j)));
  const size = turned.reduce((sum, row) => sum + dot(row, row), 0);
  for (let sweep = 0, off = size; sweep < 30 && off > 1e-24 * size; sweep++) {
    off = 0;
    for (let i = 1; i < n; i++) for (let j = 0; j < i; j++) {
      const one = turned[j], other = turned[i], cross = other[j];
      if (!cross) continue;
      off += cross * cross;
      const theta = (other[i] - one[j]) / (2 * cross), wide = Math.abs(theta) + Math.sqrt(theta * theta + 1);
      const t = (theta < 0 ? -1 : 1) / wide, c = 1 / Math.sqrt(t * t + 1), s = t * c;
      for (let k = 0; k < n; k++) {
        const row = turned[k], a = row[j], b = row[i];
        row[j] = c * a - s * b;
        row[i] = s * a + c * b;
      }
      turn(one, other, c, s);
      turn(vectors[j], vectors[i], c, s);
    }
  }
  const order = [...vectors.keys()].sort((a, b) => turned[b][b] - turned[a][a]);
  return [order.map((i) => turned[i][i]), order.map((i) => vectors[i])];
}

function turn(one, other, c, s) {
  for (let k = 0; k < one.length; k++) {
    const a = one[k], b = other[k];
    one[k] = c * a - s * b;
    other[k] = s * a + c * b;
  }
}

function times(matrix, vector) {
  const count = vector.length, made = new Float64Array(count);
  for (let i = 0, at = 0; i < count; i++) {
    let sum = 0;
    for (let j = 0; j < count; j++, at++) sum += matrix[at] * vector[j];
    made[i] = sum;
  }
  return made;
}

function mix(vectors, shares) {
  const made = new Float64Array(vectors[0].length);
  for (let i = 0; i < vectors.length; i++) add(made, shares[i], vectors[i]);
  return made;
}

function strongest(matrix) {  // axes of a covariance by subspace iteration from the last ones; null if it fails
  let block = basis.block.map((vector) => vector.slice());
  for (let round = 0; round < ROUNDS; round++) {
    orthonormal(block);
    const images = block.map((vector) => times(matrix, vector));
    const [values, turns] = eigen(block.map((a) => images.map((b) => dot(a, b))));
    const axes = turns.map((turn) => mix(block, turn)), moved = turns.map((turn) => mix(images, turn));
    const left = (i) => {  // of an axis that its image does not keep
      const rest = moved[i].slice();
      add(rest, -values[i], axes[i]);
      return Math.sqrt(dot(rest, rest));
    };
    if (axes.slice(0, WANTED).every((_, i) => left(i) < TOLERANCE * values[WANTED - 1])) {
      basis.block = axes;
      return {values: values.slice(0, WANTED), axes: axes.slice(0, WANTED).map(signed)};
    }
    block = moved.map((vector) => times(matrix, vector));  // once more, because the rest of a round costs as much
  }
  return null;
}

function signed(axis) {  // as scikit-learn's: the token's number that weighs most is positive
  const {axes, count} = basis;
  let most = 0;
  for (let at = 0; at < axes.length; at += count) {
    let weight = 0;
    for (let i = 0; i < count; i++) weight += axes[at + i] * axis[i];
    if (Math.abs(weight) > Math.abs(most)) most = weight;
  }
  return most < 0 ? axis.map((value) => -value) : axis;
}

function fit(limit) {  // {limit, scores, ratios}, null where the server has to say why not
  if (fitted?.limit === limit) return fitted.failed ? null : fitted;
  fitted = {limit, scores: new Map()};
  if (basis.fixed) return Object.assign(fitted, {ratios: basis.fixed.ratios, axes: basis.fixed.ratios});
  include(limit);
  const found = basis.members > WANTED && basis.count >= WANTED ? strongest(covariance()) : null;
  if (!found) {
    fitted.failed = true;
    return null;
  }
  const total = (basis.squares - dot(basis.sum, basis.sum) / basis.members) / (basis.members - 1);
  return Object.assign(fitted, {axes: found.axes, ratios: found.values.map((value) => value / total)});
}

function percentile(sorted, share) {
  const at = share * (sorted.length - 1), low = Math.floor(at), high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

function scoresOf(component) {  // all patches along an axis, from 0 to 1 between its 1st and 99th percentile, clipped
  if (fitted.scores.has(component)) return fitted.scores.get(component);
  const {count, rows, inside, sum, members, fixed} = basis, made = new Float32Array(inside.length);
  let low, high;
  if (fixed) {
    for (let p = 0; p < made.length; p++) made[p] = rows[p * count + component];
    [low, high] = [fixed.low[component], fixed.high[component]];
  } else {
    const axis = fitted.axes[component], middle = dot(sum, axis) / members;
    for (let p = 0, at = 0; p < made.length; p++) {
      let score = -middle;
      for (let i = 0; i < count; i++, at++) score += rows[at] * axis[i];
      made[p] = score;
    }
    const sorted = made.filter((_, p) => inside[p]).sort();
    [low, high] = [percentile(sorted, 0.01), percentile(sorted, 0.99)];
  }
  const spread = Math.max(high - low, 1e-12);
  for (let p = 0; p < made.length; p++) made[p] = Math.min(Math.max((made[p] - low) / spread, 0), 1);
  fitted.scores.set(component, made);
  return made;
}
